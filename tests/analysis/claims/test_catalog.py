"""Every claim has a space whose study answers it, or a reason why none does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.claims import __main__ as command
from analysis.claims.catalog import WIDTH, in_words
from analysis.claims.claim import Statement
from analysis.claims.findings import findings, statements
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study
from analysis.statistics.verdict import Verdict
from study.core.hashing import digest
from study.core.records import Tag, flatten
from study.planning.cost_model import forecast
from study.space.search_space import SHIPPED, load_space
from study.space.trial import Trial
from study.space.yaml_loader import read_yaml

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = 1
ANSWERED = list(dict.fromkeys((s.space, s.profile) for s in statements() if s.space))


def error_of(trial: Trial) -> float:
    """Something that differs from arm to arm and seed to seed."""
    return 0.1 + int(digest([trial.model_dump(mode="json")])[:4], 16) / 1e7


def settings_of(trial: Trial) -> dict[str, str]:
    return {name: str(value) for name, value in flatten(trial.model_dump(mode="json"))}


def done(trial: Trial, number: int, key: str, scratch: Build) -> Run:
    """A trial of a space as if it had run, with the errors that its task has."""
    run = scratch(number, trial.seed, error_of(trial))
    run.params.clear()
    run.params.update(settings_of(trial))
    frames = {"study.train_frames": "80", "study.validation_frames": "9", "study.test_frames": "11"}
    weights = str(trial.model.layers * trial.model.hidden**2)
    run.tags.update(
        frames | {"study.parameters": weights} | ({Tag.PRETRAINING: key} if key else {})
    )
    slow = trial.finetune.epochs * (1 if trial.pretrain else 2)
    points = [p._replace(value=float(slow)) if p.metric == "seconds" else p for p in run.points]
    errors = trial.finetune.task.errors
    if "force_rmse" not in errors:
        points = [p for p in points if not p.metric.endswith("_rmse")]
        points += [Point(f"{part}_{e}", 0, 0.1) for part in ("test", "trivial") for e in errors]
    run.points[:] = points
    return run


def study_of(
    space: str, profile: str, scratch: Build, pretrained: Build, tabulate: Tabulate
) -> Study:
    """A study of all trials with the first seeds, as if it had run."""
    loaded = load_space(space, profile)
    trials = [t for t in loaded.grid() if t.seed in loaded.settings.seeds[:SEEDS]]
    runs: dict[str, Run] = {}
    for number, trial in enumerate(trials):
        key = ""
        if trial.pretraining is not None:
            own = trial.model_dump(mode="json", exclude={"finetune", "transfer"})
            first = pretrained(trial.seed, digest([own])[:8], 0.3)
            first.params.update(settings_of(trial))
            key = first.tags[Tag.KEY]
            runs[key] = first
        runs[str(number)] = done(trial, number, key, scratch)
    return tabulate(*runs.values(), name=space, profile=profile, metric=loaded.settings.metric)


@pytest.mark.parametrize(
    ("space", "profile"),
    [each for each in ANSWERED if each[0] != "denoising_qm9" or each[1] in ("paper", "lumo")],
)
def test_the_space_of_a_claim_answers_it(
    space: str, profile: str, scratch: Build, pretrained: Build, tabulate: Tabulate
) -> None:
    study = study_of(space, profile, scratch, pretrained, tabulate)
    found = {f.statement.id: f for f in findings([study])}
    for claim in statements():
        if (claim.space, claim.profile) == (space, profile):
            assert found[claim.id].study == space, claim.id
            assert found[claim.id].verdict not in (Verdict.NOT_RUN, Verdict.OTHER_DATA, ""), (
                claim.id
            )


def test_a_profile_learns_the_target_of_its_claims() -> None:
    """Of QM9 it alone tells one profile from another."""
    space = read_yaml(SHIPPED / "denoising_qm9.yaml")
    metrics = {name: (each or space).get("metric") for name, each in space["profiles"].items()}
    for claim in statements():
        if claim.space == "denoising_qm9" and claim.arm is not None:
            assert metrics[claim.profile] == f"val_{claim.quantity}"


def test_every_claim_says_where_it_is_from_and_what_answers_it() -> None:
    by_id = {s.id: s for s in statements()}
    for claim in by_id.values():
        assert claim.origin in {"table", "figure", "text", "derived", "other source"}, claim.id
        assert (claim.origin == "other source") == bool(claim.source), claim.id
        assert claim.origin != "derived" or claim.derived, claim.id
        assert claim.space or claim.needs, claim.id
        assert bool(claim.space) == (claim.arm is not None or bool(claim.parts)), claim.id
        assert {*claim.parts} <= by_id.keys(), claim.id
        assert claim.enough <= len(claim.parts), claim.id


def listing(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert command.main([*options]) == 0
    return capsys.readouterr().out


def test_the_list_has_every_claim_once_and_fits_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = listing(capsys, "--texts")
    assert max(map(len, shown.splitlines())) <= WIDTH
    words = [line.split()[0] for line in shown.splitlines() if line.startswith("    ")]
    for claim in statements():
        assert words.count(claim.id) == 1
    costs = " ".join(shown.split())
    for space, profile in ANSWERED:
        assert in_words(forecast(space, profile)) in costs


def test_a_paper_or_a_space_is_listed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    mine = [s.id for s in statements() if s.paper == "2303.02216"]
    shown = listing(capsys, "--paper", "2303.02216")
    assert all(f" {name} " in shown for name in mine)
    assert "table1" not in shown
    without = listing(capsys, "--space", "none")
    assert "core-hours" not in without
    assert "section-large-batches" in without


@pytest.mark.parametrize("option", ["--paper", "--space"])
def test_what_no_claim_names_is_answered_in_a_line(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([option, "nothing"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{option} nothing: must be one of ")


def of(name: str) -> Statement:
    (found,) = (statement for statement in statements() if statement.id == name)
    return found


def test_costs_are_those_of_the_plan() -> None:
    cost = forecast("figure4", "paper")
    # 4 ratios and scratch, 4 seeds; 90 % of 90 % of 7241 frames, 16 a step.
    steps = -(-5865 // 16)
    assert (cost.trials, cost.pretrainings) == (20, 16)
    assert cost.steps == pytest.approx(steps * (16 * 100 + 20 * 300), rel=0.005)
    assert of("fig4-rpbe-best-ratio").command == (
        "python -m study.run --space figure4 --profile paper"
    )


def test_trials_that_tune_are_counted() -> None:
    # 3 arms, 4 seeds and 4 proposals each.
    assert forecast("tuned_arms", "quick").trials == 3 * 4 + 3 * 4
