"""What studies say of the claims."""

from __future__ import annotations

import math
import re
import statistics
from ast import literal_eval
from collections.abc import Callable
from typing import Any

import pytest

from analysis.claims.claim import GAINS, Statement, readers
from analysis.claims.findings import (
    findings,
    findings_table,
    statements,
)
from analysis.claims.sizes import SIZES
from analysis.html.headline import headline
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study
from analysis.statistics.verdict import Verdict
from tests.analysis.claims.trials import of_full_size

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


def test_claims_are_judged_or_say_why_not(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 * (1 + seed / 1000)) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.9, 0.099) for seed in SEEDS]
    found = {f.statement.id: f for f in findings([tabulate(*runs)])}
    force = found["t1-tip3p-egnn-force"]
    assert (force.verdict, force.effect) == (Verdict.DIRECTION, Verdict.LOWER)
    assert force.change.percent == pytest.approx(-1.1, abs=0.01)
    assert (force.scale, force.reading) == ("reduced", "corrected")
    assert len(force.run_ids) == 6
    assert found["t1-rpbe-egnn-force"].verdict == Verdict.NOT_RUN
    assert "QM9" in found["denoising-gns-tat-gap"].reason


def test_other_data_give_no_verdict(tabulate: Tabulate, scratch: Build, masked: Build) -> None:
    name = {"dataset.name": "n2p2_file", "dataset.path": "rpbe.data"}
    runs = [scratch(seed, seed, 0.1, **name) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.25, 0.05, **name) for seed in SEEDS]
    for run in runs[3:]:
        run.params.update(name)
    table = findings_table(findings([tabulate(*runs)])).set_index("id")
    assert table.verdict["t1-rpbe-egnn-force"] == Verdict.OTHER_DATA
    assert table.reason["t1-rpbe-egnn-force"] == "rpbe.data in place of RPBE-D3 water"


def test_two_seeds_are_refused_and_the_number_needed_is_told(
    tabulate: Tabulate, scratch: Build, masked: Build, power: Callable[..., float]
) -> None:
    runs = [
        scratch(0, 0, 0.1),
        scratch(1, 1, 0.1),
        masked(2, 0, 0.9, 0.08),
        masked(3, 1, 0.9, 0.09),
    ]
    study = tabulate(*runs)
    found = {f.statement.id: f for f in findings([study])}
    force = found["t1-tip3p-egnn-force"]
    assert force.verdict == Verdict.TOO_FEW
    assert force.needed is not None
    assert force.needed > 3
    told = headline(study)
    assert told.sentence.startswith("Too few seeds for a verdict on pretraining")
    assert "It takes 3 seeds to estimate how many find a 5 % change" in told.remark
    told = headline(tabulate(*runs, scratch(4, 2, 0.1), masked(5, 2, 0.9, 0.105)))
    (wanted,) = re.findall(r"needs (\d+) seeds", told.remark)
    # As many as a t test of this spread needs.
    spread = statistics.stdev(map(math.log, (0.8, 0.9, 1.05)))
    effect = -math.log(0.95) / spread
    by_t = next(n for n in range(3, 99) if power(effect, n, 0.05) >= 0.8)
    # The signed-rank test takes π / 3 times as many.
    assert int(wanted) == math.ceil(by_t * math.pi / 3)


def test_another_reading_of_the_paper_is_named(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    name = {"model.radial": "squared"}
    runs = [scratch(seed, seed, 0.1, **name) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.9, 0.09, **name) for seed in SEEDS]
    found = {f.statement.id: f for f in findings([tabulate(*runs)])}
    assert found["t1-tip3p-egnn-force"].reading == "corrected, but model.radial squared (paper)"


def test_studies_that_share_their_work_are_told_together(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 + seed / 1000) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.9, 0.09) for seed in SEEDS]
    one, two = tabulate(*runs, name="one"), tabulate(*runs, name="two")
    found = [f for f in findings([one, two]) if f.statement.id == "t1-tip3p-egnn-force"]
    assert [f.study for f in found] == ["one, two"]


def of(name: str) -> Statement:
    (found,) = (statement for statement in statements() if statement.id == name)
    return found


def asked_of(statement: Statement) -> dict[str, str]:
    """Data and model of a claim, or what stands for any."""
    arm = statement.arm or {}
    return {"model": "egnn", "activation": "", "dataset": "", **arm}


CONTROLS: list[dict[str, Any]] = [
    {"task": "scratch"},
    {"task": "scratch", "longer": True},
    {"task": "masking", "ratio": 0.9},
    {"task": "masking", "ratio": 0.5},
    {"task": "masking", "ratio": 0.9, "placebo": True},
    {"task": "masking", "ratio": 0.9, "loss": "distance"},
    {"task": "scratch", "auxiliary": True},
]


FILES = {"md22": "data/MD22_AT-AT.npz", "rmd17": "data/rmd17_aspirin.npz"}


TWELVE = ("homo", "lumo", "gap", "mu", "alpha", "r2", "zpve", "u0", "u298", "h298", "g298", "cv")


PROPERTY = {
    "qm9": tuple(f"{target}_mae" for target in TWELVE),
    "des15k": ("interaction_energy_mae",),
}


def asked(
    arm: dict[str, Any], kind: tuple[str, str, str], number: int, scratch: Build, masked: Build
) -> Run:
    """A trial of an arm, with the errors that its data set has."""
    dataset, model, activation = kind
    settings: dict[str, Any] = {"dataset.name": readers(dataset)[0], "model.name": model}
    settings |= {"model.activation": activation} if activation else {}
    settings |= {"dataset.path": FILES[dataset]} if dataset in FILES else {}
    settings |= {"finetune.epochs": 8} if arm.get("longer") else {}
    for name, value in (
        {"name": "denoising", "noise_scale": 0.1}.items() if "auxiliary" in arm else ()
    ):
        settings[f"finetune.task.auxiliary.task.{name}"] = value
        settings["finetune.task.auxiliary.weight"] = 0.1
    seed, error = number % 100, 0.1 + number / 1e4
    if arm["task"] == "scratch":
        run = scratch(number, seed, error, **settings)
    else:
        task = {"name": arm["task"], "placebo": arm.get("placebo", False)}
        task |= {name: arm[name] for name in ("atom", "within", "loss") if name in arm}
        task |= {"noise_scale": arm.get("noise", 0.5)} if task["name"] == "denoising" else {}
        settings |= {f"pretrain.task.{name}": value for name, value in task.items()}
        others = [name for name in arm.get("pretrained_on", []) if name]
        settings |= {"pretrain.dataset.name": readers(others[0])[0]} if others else {}
        run = masked(number, seed, 0.9, error, **settings)
        settings["pretrain.task.masking_ratio"] = arm.get("ratio", 0.9)
        run.params.update((name, str(value)) for name, value in settings.items())
        if task["name"] == "denoising":
            del run.params["pretrain.task.masking_ratio"]
    run.tags.update({"study.validation_frames": "1", "study.test_frames": "1"})
    if arm.get("longer"):
        run.points[:] = [p._replace(value=60.0) if p.metric == "seconds" else p for p in run.points]
    if dataset in PROPERTY:
        kept = [point for point in run.points if not point.metric.endswith("_rmse")]
        told = [(part, name) for part in ("test", "trivial") for name in PROPERTY[dataset]]
        run.points[:] = [*kept, *(Point(f"{part}_{name}", 0, error) for part, name in told)]
    return run


TESTED = [s for s in statements() if s.arm is not None and s.measure not in {*GAINS, *SIZES}]


"""Gains and errors by a count need more than one study here has."""


KINDS = sorted({tuple(asked_of(s)[k] for k in ("dataset", "model", "activation")) for s in TESTED})


@pytest.mark.parametrize("kind", KINDS)
def test_every_claim_is_found_in_a_study_of_what_it_names(
    kind: tuple[str, str, str],
    tabulate: Tabulate,
    scratch: Build,
    masked: Build,
    pretrained: Build,
) -> None:
    mine = [
        s
        for s in TESTED
        if tuple(asked_of(s)[k] for k in ("dataset", "model", "activation")) == kind
    ]
    arms = [*CONTROLS, *({**CONTROLS[2], **(s.arm or {})} for s in mine)]
    runs = [pretrained(seed, 0.9, 0.3) for seed in SEEDS]
    for place, arm in enumerate(dict.fromkeys(str(arm) for arm in arms)):
        for seed in SEEDS:
            runs.append(asked(literal_eval(arm), kind, 100 * place + seed, scratch, masked))
    found = {f.statement.id: f for f in findings([tabulate(*map(of_full_size, runs))])}
    for statement in mine:
        assert found[statement.id].study, statement.id
        assert found[statement.id].verdict not in ("", Verdict.OTHER_DATA), statement.id


ELSEWHERE = {"dataset.name": "ase_file", "dataset.path": "large.extxyz"}


@pytest.mark.parametrize(
    ("changes", "denoised", "verdict"),
    [
        ({}, {}, Verdict.DIRECTION),
        (ELSEWHERE, {}, Verdict.OTHER_DATA),
        ({"dataset.path": "MD17_aspirin.npz"}, {}, Verdict.OTHER_DATA),
        ({"dataset.name": "tip3p_water", "dataset.path": ""}, {}, Verdict.NOT_RUN),
        (ELSEWHERE, {"pretrain.dataset.name": ""}, Verdict.NOT_RUN),
        ({"finetune.trainable": "readout"}, {}, Verdict.NOT_RUN),
        (ELSEWHERE | {"finetune.trainable": "readout"}, {}, Verdict.NOT_RUN),
    ],
)
def test_carrying_over_is_told_of_features_that_learn_on_from_other_data(
    changes: dict[str, str],
    denoised: dict[str, str],
    verdict: str,
    tabulate: Tabulate,
    scratch: Build,
    masked: Build,
) -> None:
    claim = of("nonequilibrium-md22")
    assert claim.arm is not None
    runs = []
    for place, arm in enumerate(({"task": "scratch"}, claim.arm)):
        for seed in SEEDS:
            run = asked(arm, ("md22", "egnn", ""), 100 * place + seed, scratch, masked)
            run.params.setdefault("finetune.trainable", "all")
            run.params.update(changes | (denoised if place else {}))
            for name in [name for name, value in run.params.items() if value == ""]:
                del run.params[name]
            lower = 0.5 if place else 1.0
            run.points[:] = [p._replace(value=lower * p.value) for p in run.points]
            runs.append(run)
    found = {f.statement.id: f for f in findings([tabulate(*runs, profile="paper")])}
    assert found[claim.id].verdict == verdict


def of_sizes(scratch: Build, masked: Build, **settings: str) -> list[Run]:
    """GNS-TAT of three sizes on OC20, denoised and from scratch, and a larger SchNet."""
    runs = []
    sizes = [(1000, 0.9, 1.0), (4000, 0.5, 0.8), (20_000, 0.3, 0.6), (90_000, 0.1, 0.1)]
    for place, (parameters, denoised, fresh) in enumerate(sizes):
        model = ("gns", "tailored") if parameters < 90_000 else ("schnet", "")
        kind = ("oc20", *model)
        for seed in SEEDS:
            arms = ({"task": "scratch"}, {"task": "denoising", "pretrained_on": ["pcqm4mv2"]})
            for number, arm in enumerate(arms):
                run = asked(arm, kind, 100 * (2 * place + number) + seed, scratch, masked)
                run.params.update({"model.hidden": str(8 * (place + 1))} | settings)
                run.tags["study.parameters"] = str(parameters)
                error = denoised * 1.01 ** (seed * place) if number else fresh
                run.points[:] = [p._replace(value=0.1 * error) for p in run.points]
                runs.append(run)
    return runs


def test_models_of_one_kind_are_compared_by_their_size(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    found = {f.statement.id: f for f in findings([tabulate(*of_sizes(scratch, masked))])}
    scaling, smaller = found["denoising-model-scaling"], found["denoising-smaller-model"]
    assert scaling.change.percent == pytest.approx(100 * (0.3 / 0.9 * 1.01**2 - 1))
    assert smaller.change.percent == pytest.approx(100 * (0.5 / 0.6 * 1.01 - 1))
    assert scaling.change.n == smaller.change.n == len(SEEDS)
    # No band is printed.
    assert (scaling.verdict, smaller.verdict) == (Verdict.DIRECTION, Verdict.DIRECTION)


def test_models_of_one_size_are_not_compared(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [run for run in of_sizes(scratch, masked) if run.params["model.hidden"] == "8"]
    found = {f.statement.id: f for f in findings([tabulate(*runs)])}
    for name in ("denoising-model-scaling", "denoising-smaller-model"):
        assert found[name].verdict == Verdict.NOT_RUN


def test_a_claim_of_several_parts_is_judged_by_them(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    """EGNN on TIP3P water: the forces fall, the energies do as told; RPBE water is not there."""
    verdicts = {}
    for energy in (0.5, 2.0):
        runs = [scratch(seed, seed, 0.1 * (1 + seed / 1000)) for seed in SEEDS]
        runs += [masked(3 + seed, seed, 0.9, 0.05) for seed in SEEDS]
        for run in runs[3:]:
            run.points[:] = [
                p._replace(value=energy * p.value / 0.5) if "energy" in p.metric else p
                for p in run.points
            ]
        found = {f.statement.id: f for f in findings([tabulate(*runs)])}
        whole = found["t1-egnn-everything"]
        verdicts[energy] = (whole.verdict, whole.measured)
        assert whole.reason == "2 of 4 parts not run"
        assert whole.study == "masking_ratio-quick"
    assert verdicts[0.5] == ("inconclusive", "2 of 4 parts hold, 0 fail")
    assert verdicts[2.0] == ("contradicted", "1 of 4 parts hold, 1 fail")


def test_what_is_told_at_the_papers_size_alone_says_so(tabulate: Tabulate, scratch: Build) -> None:
    found = {f.statement.id: f for f in findings([tabulate(scratch(0, 0, 0.1))])}
    assert found["data-tip3p-frames"].reason.startswith("no study here at the paper's size has")
    assert found["data-tip3p-forces"].measured == "600 meV/Å"
