"""The papers' ablations, on hand-written studies with known answers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis.claims.findings import NOT_RUN, OTHER_DATA, findings, findings_table
from analysis.comparisons.arms import arms, compared, references
from analysis.comparisons.controls import beside, final
from analysis.comparisons.cost import saved_by_stopping
from analysis.comparisons.paper_tables import data_efficiency, table1
from analysis.comparisons.quantities import FORCE
from analysis.comparisons.search import audit, importances, pareto, timeline
from analysis.comparisons.statistics import NULL, TOO_FEW
from analysis.comparisons.training_curves import convergence, first_below, learning_area, stability
from analysis.figures import against
from analysis.gates import gates
from analysis.html.headline import headline
from analysis.html.study_section import _search
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study
from study.core.records import flatten
from study.space.search_space import load_space

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


@pytest.fixture
def extended(tabulate: Tabulate, scratch: Build, masked: Build, pretrained: Build) -> Study:
    """Scratch 4 and 8 epochs, masking and its placebo 4 + 4: 100, 80, 90 and 100 meV/Å."""
    runs = [pretrained(seed, ratio, 0.3) for seed in SEEDS for ratio in (0.9, 0.5)]
    for seed in SEEDS:
        off = 1 + seed / 1000
        long = scratch(10 + seed, seed, 0.08 * off, **{"finetune.epochs": 8})
        long.points[:] = [
            p._replace(value=60.0) if p.metric == "seconds" else p for p in long.points
        ]
        fake = masked(30 + seed, seed, 0.5, 0.1 * off, **{"pretrain.task.placebo": True})
        runs += [
            scratch(seed, seed, 0.1 * off),
            long,
            masked(20 + seed, seed, 0.9, 0.09 * off),
            fake,
        ]
    return tabulate(*runs)


def test_every_pretrained_arm_stands_beside_all_it_must_beat(extended: Study) -> None:
    rows = beside(final(compared(extended), FORCE)).set_index("kind")
    assert list(rows.index) == ["scratch", "equal steps", "equal compute", "placebo"]
    assert rows.change["scratch"] == pytest.approx(-10)
    assert rows.change["equal steps"] == pytest.approx(12.5)
    assert rows.change["placebo"] == pytest.approx(-10)
    assert rows.reference["equal steps"] == "from scratch, 8 epochs"


def test_equal_compute_lies_between_the_lengths_of_scratch(extended: Study) -> None:
    trials = compared(extended).groupby("arm")["compute"].median()
    assert trials["from scratch, 4 epochs"] == 30
    assert trials["from scratch, 8 epochs"] == 60
    assert trials["masking 0.9, 4 epochs"] == 40
    share = math.log(40 / 30) / math.log(2)
    rows = beside(final(compared(extended), FORCE)).set_index("kind")
    expected = 0.09 / (0.1 * 0.8**share) - 1
    assert rows.change["equal compute"] == pytest.approx(100 * expected)


def on_a_cpu(run: Run, seconds: float) -> Run:
    run.tags["study.device"] = "cpu"
    run.points.append(Point("cpu_seconds", 0, seconds))
    return run


def test_compute_is_processor_time_if_all_was_done_on_cpus(
    tabulate: Tabulate, scratch: Build
) -> None:
    some = [on_a_cpu(scratch(seed, seed, 0.1), 12.0) for seed in SEEDS]
    assert set(arms(tabulate(*some))["compute"]) == {12}
    assert set(arms(tabulate(*some, scratch(3, 3, 0.1)))["compute"]) == {30}
    some[0].tags["study.device"] = "NVIDIA H200"
    assert set(arms(tabulate(*some))["compute"]) == {30}


def test_longer_scratch_is_compared_with_the_shortest(extended: Study) -> None:
    assert references(compared(extended))["from scratch, 8 epochs"] == "from scratch, 4 epochs"


def test_without_scratch_arms_are_compared_with_the_first(
    tabulate: Tabulate, masked: Build
) -> None:
    study = tabulate(masked(0, 0, 0.5, 0.1), masked(1, 0, 0.5, 0.1, transfer="all"))
    assert len(references(compared(study))) == 1


@pytest.mark.parametrize("space", ["transfer", "noisy_nodes", "any_model", "text_or_code"])
def test_trials_of_an_arm_differ_by_their_seed_alone(
    space: str, tabulate: Tabulate, scratch: Build
) -> None:
    runs = []
    for number, trial in enumerate(load_space(space, "quick").grid()):
        run = scratch(number, trial.seed, 0.1)
        run.params.clear()
        run.params.update(
            (name, str(value)) for name, value in flatten(trial.model_dump(mode="json"))
        )
        runs.append(run)
    trials = arms(tabulate(*runs))
    assert (trials.groupby("arm").seed.nunique() == 3).all()
    assert not trials.duplicated(["arm", "seed"]).any()
    known = references(trials)
    first = trials[trials.scratch].arm
    assert first.empty or {known[arm] for arm in trials[~trials.scratch].arm} <= set(first)


def test_a_model_and_data_of_any_name_are_called_by_it(tabulate: Tabulate, scratch: Build) -> None:
    own = {"model.name": "my_net", "dataset.name": "my_set", "dataset.path": "/far/away.xyz"}
    tat = {"model.name": "gns", "model.activation": "tailored"}
    trials = arms(tabulate(scratch(0, 0, 0.1, **own), scratch(1, 0, 0.1, **tat)))
    assert trials.model.tolist() == ["my net", "GNS-TAT"]
    assert trials.data.tolist() == ["away.xyz", "TIP3P water"]
    assert trials.arm[0] == "from scratch, my net, away.xyz"


def test_a_task_beside_finetuning_is_compared_with_scratch_and_its_placebo(
    tabulate: Tabulate, scratch: Build
) -> None:
    noisy = {
        "finetune.task.auxiliary.task.name": "denoising",
        "finetune.task.auxiliary.task.noise_scale": 0.1,
        "finetune.task.auxiliary.weight": 0.01,
        "finetune.task.auxiliary.task.placebo": False,
    }
    fake = noisy | {
        "finetune.task.auxiliary.task.placebo": True,
        "finetune.task.auxiliary.weight": 0.1,
    }
    runs = [
        scratch(10 * place + seed, seed, error, **settings)
        for place, (error, settings) in enumerate([(0.1, {}), (0.08, noisy), (0.1, fake)])
        for seed in SEEDS
    ]
    study = tabulate(*runs)
    rows = beside(final(compared(study), FORCE))
    arm = "auxiliary denoising 0.1 at weight 0.01"
    assert set(rows.arm) == {arm}
    told = "Pretraining or an auxiliary task lowered the final force error"
    assert headline(study).sentence == f"{told}: {arm}."
    assert rows.set_index("kind").change[["scratch", "placebo"]].tolist() == pytest.approx(
        [-20] * 2
    )


def test_the_name_of_an_arm_tells_its_task(tabulate: Tabulate, masked: Build) -> None:
    tasks = "[{'task': {'name': 'masking', 'masking_ratio': 0.9}, 'weight': 1.0}]"
    mixed = {"pretrain.task.name": "mixed", "pretrain.task.tasks": tasks}
    study = tabulate(
        masked(0, 0, 0.5, 0.1, **{"pretrain.task.placebo": True}), masked(1, 0, 0.9, 0.1)
    )
    assert arms(study).task.tolist() == ["masking 0.5 placebo", "masking 0.9"]
    run = masked(1, 0, 0.9, 0.1)
    run.params.update(mixed)
    del run.params["pretrain.task.masking_ratio"]
    assert arms(tabulate(run)).task.tolist() == ["masking 0.9"]


def curve(*errors: float) -> pd.Series:
    """Errors after the first epoch, the second and so on."""
    return pd.Series(errors, range(1, len(errors) + 1))


def test_the_crossing_is_interpolated_in_the_logarithm() -> None:
    assert first_below(curve(4.0, 1.0), 2.0) == pytest.approx(1.5)
    assert first_below(curve(1.0), 2.0) == 1.0
    assert math.isinf(first_below(curve(4.0), 2.0))
    # Where an evaluation is missing the line goes on to the next one.
    assert first_below(curve(4.0, 3.0, 1.0).drop(2), 2.0) == pytest.approx(2.0)


def test_convergence_counts_those_that_never_get_there(extended: Study) -> None:
    table = convergence(extended).set_index(["arm", "target"])
    half = table.loc[("masking 0.9, 4 epochs", 2.0)]
    # Errors fall as 4^(1 - epoch/4): scratch is at twice its end after 2 epochs.
    assert table.epochs["from scratch, 4 epochs", 2.0] == pytest.approx(2.0, abs=0.01)
    assert half.epochs == pytest.approx(2 + 4 * math.log(0.9) / math.log(4), abs=0.02)
    assert half.reached == half.n == 3
    assert half.total < 1  # Pretraining costs more than it saves.
    never = table.loc[("masking 0.5 placebo, 4 epochs", 1.0)]
    assert never.reached < never.n


def test_the_learning_area_is_a_geometric_mean(extended: Study) -> None:
    area = learning_area(extended).set_index(["arm", "seed"])["log"]
    expected = math.log(0.1) + math.log(4) * np.mean([0.75, 0.5, 0.25, 0])
    assert area["from scratch, 4 epochs", 0] == pytest.approx(expected)


def test_divergence_and_collapse_are_counted_with_their_intervals(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.59) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.5, 0.1) for seed in SEEDS]
    runs += [masked(9, 3, 0.5, 9.0, status="diverged")]
    table = stability(tabulate(*runs)).set_index("arm")
    assert table.collapsed.to_dict() == {"from scratch": 3, "masking 0.5": 0}
    assert table.diverged.to_dict() == {"from scratch": 0, "masking 0.5": 1}
    assert table.diverged_high["masking 0.5"] == pytest.approx(80.6, abs=0.1)
    assert table.fluctuation["from scratch"] == pytest.approx(0, abs=1e-9)


def test_table_1_has_a_row_per_model_and_its_changes(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = []
    for place, model in enumerate(("egnn", "gns")):
        for seed in SEEDS:
            name = {"model.name": model}
            runs += [scratch(20 * place + seed, seed, 0.1, **name)]
            runs += [masked(20 * place + 10 + seed, seed, 0.5, 0.1 / (place + 2), **name)]
    table = table1(tabulate(*runs)).set_index("model")
    assert table.force_change.to_dict() == pytest.approx({"EGNN": -50, "GNS": -200 / 3})
    assert table.energy_scratch["GNS"] == pytest.approx(100)


def test_data_efficiency_has_the_slope_of_the_logarithms(
    tabulate: Tabulate, scratch: Build
) -> None:
    runs = [
        scratch(
            10 * place + seed, seed, 0.1 * (1 + seed / 1000) / labels, **{"finetune.frames": labels}
        )
        for place, labels in enumerate((2, 4, 8))
        for seed in SEEDS
    ]
    table = data_efficiency(tabulate(*runs))
    assert table["labels"].tolist() == [2, 4, 8]
    assert table.slope.iloc[0] == pytest.approx(-1, abs=0.01)


def test_errors_against_width_join_models_of_equal_depth(
    tabulate: Tabulate, scratch: Build
) -> None:
    sizes = [(16, 2), (32, 2), (16, 4)]
    runs = [
        scratch(
            10 * place + seed,
            seed,
            1 / width / depth,
            **{"model.hidden": width, "model.layers": depth},
        )
        for place, (width, depth) in enumerate(sizes)
        for seed in SEEDS
    ]
    drawn = {drawing.name: drawing for drawing in against.drawings(tabulate(*runs))}
    assert {"force_rmse_against_width", "force_rmse_against_depth"} <= drawn.keys()
    shown = drawn["force_rmse_against_width"].shown.groupby(["task", "at"]).value.mean()
    # A model that is the only one of its depth is on no line.
    assert shown.to_dict() == pytest.approx(
        {("from scratch, depth 2", 16.0): 1000 / 32, ("from scratch, depth 2", 32.0): 1000 / 64}
    )
    axes = drawn["force_rmse_against_width"].figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_equally_long_pretrainings_stand_by_their_frames_in_the_order_of_the_plan(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1) for seed in SEEDS]
    for place, frames in enumerate((8, 50, 400), start=1):
        for seed in SEEDS:
            run = masked(10 * place + seed, seed, 0.5, 0.1 - 0.01 * place)
            told = {"pretrain.frames": frames, "pretrain.epochs": 400 // frames}
            run.params.update((name, str(value)) for name, value in told.items())
            runs.append(run)
    study = tabulate(*runs)
    names = [f"masking 0.5, frames {frames}" for frames in (8, 50, 400)]
    assert list(compared(study).arm.unique()) == ["from scratch", *names]
    drawn = {drawing.name: drawing for drawing in against.drawings(study)}
    frames = drawn["force_rmse_against_frames_to_pretrain_on"]
    across, line = [
        one
        for one in frames.figure.axes[0].lines
        if one.get_label() in ("from scratch", "masking 0.5")
    ]
    assert list(across.get_ydata()) == pytest.approx([100, 100])
    assert list(line.get_xdata()) == [8, 50, 400]
    assert list(line.get_ydata()) == pytest.approx([90, 80, 70])


@pytest.fixture
def search(tabulate: Tabulate, masked: Build, scratch: Build, audited: Build) -> Study:
    """Ten proposals, the ratio decides; one was stopped, and an audit finished it."""
    runs = [masked(n, 0, n / 10 + 0.05, (n + 1) / 100, exempt=False) for n in range(9)]
    stopped = masked(9, 0, 0.95, 0.3, status="stopped", exempt=False)
    late = audited(9, 0, 0.95, 0.005)
    return tabulate(*runs, stopped, late, scratch(10, 0, 0.4), search={"trials": 10})


def test_stopped_trials_are_marked_and_keep_their_error(search: Study) -> None:
    table = timeline(search).set_index("number")
    assert table.status[9] == "stopped"
    assert table.proposed.tolist() == [True] * 10 + [False]
    assert table.value[9] > 300


def test_what_decides_is_important_within_its_branch(search: Study) -> None:
    (row,) = importances(search).to_dict("records")
    assert (row["branch"], row["setting"]) == ("masking", "pretrain.task.masking_ratio")
    assert row["importance"] == pytest.approx(100)


def test_a_search_says_why_nothing_is_said_of_what_mattered(
    search: Study, tabulate: Tabulate, masked: Build, scratch: Build
) -> None:
    assert "What mattered" not in _search(search)
    runs = [masked(n, 0, n / 10 + 0.05, (n + 1) / 100, exempt=False) for n in range(7)]
    more = [scratch(n, 0, 0.4, exempt=False) for n in range(7, 10)]
    few = tabulate(*runs, *more, search={"trials": 10})
    assert importances(few).empty
    assert "What mattered is told from 8 proposals" in _search(few)
    assert _search(few).endswith("here there are at most 7.")


def test_nothing_is_better_and_cheaper_than_the_front(search: Study) -> None:
    table = pareto(search)
    assert table[table.front].number.tolist()[-1] == 0
    assert 9 not in set(table.number)


def test_an_audit_tells_which_winners_were_stopped(search: Study) -> None:
    found = audit(search)
    assert (found["stopped"], found["sampled"], found["better"], found["rank"]) == (1, 1, 1, 1)
    assert found["high"] == pytest.approx(100)
    assert saved_by_stopping(search)["seconds"] >= 0


def test_an_audit_that_diverges_is_no_winner(
    tabulate: Tabulate, masked: Build, audited: Build
) -> None:
    ends: list[dict[str, object]] = [{"status": "stopped", "exempt": False} for _ in range(3)]
    runs = [masked(n + 1, 0, 0.5, 0.3, **end) for n, end in enumerate(ends)]
    audits = [audited(n + 1, 0, 0.5, 0.1, status=s) for n, s in enumerate(("diverged", "failed"))]
    found = audit(tabulate(masked(0, 0, 0.5, 0.2, exempt=False), *runs, *audits, search={}))
    assert (found["stopped"], found["sampled"], found["better"], found["rank"]) == (3, 1, 0, 2)


def test_a_repeat_that_was_planned_before_the_last_proposal_is_no_proposal(
    tabulate: Tabulate, masked: Build
) -> None:
    runs = [masked(n, n, 0.5, 0.1, exempt=n == 1) for n in range(3)]
    table = timeline(tabulate(*runs, search={"trials": 2}))
    assert table.proposed.tolist() == [True, False, True]


def test_claims_are_judged_or_say_why_not(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 * (1 + seed / 1000)) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.9, 0.099) for seed in SEEDS]
    found = {f.statement.id: f for f in findings([tabulate(*runs)])}
    force = found["t1-tip3p-egnn-force"]
    assert force.verdict == NULL
    assert force.change.percent == pytest.approx(-1.1, abs=0.01)
    assert (force.scale, force.reading) == ("reduced", "corrected")
    assert len(force.run_ids) == 6
    assert found["t1-rpbe-egnn-force"].verdict == NOT_RUN
    assert "QM9" in found["denoising-gns-tat-gap"].reason


def test_at_full_scale_the_band_of_the_paper_counts(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 * (1 + seed / 100)) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.9, 0.064) for seed in SEEDS]
    (found,) = (
        f
        for f in findings([tabulate(*runs, profile="paper")])
        if f.statement.id == "t1-tip3p-egnn-force"
    )
    assert (found.scale, found.verdict) == ("full", "reproduced")


def test_other_data_give_no_verdict(tabulate: Tabulate, scratch: Build, masked: Build) -> None:
    name = {"dataset.name": "n2p2_file", "dataset.path": "rpbe.data"}
    runs = [scratch(seed, seed, 0.1, **name) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.25, 0.05, **name) for seed in SEEDS]
    for run in runs[3:]:
        run.params.update(name)
    table = findings_table(findings([tabulate(*runs)])).set_index("id")
    assert table.verdict["t1-rpbe-egnn-force"] == OTHER_DATA
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
    assert force.verdict == TOO_FEW
    assert force.needed is not None
    assert force.needed > 3
    told = headline(study)
    assert told.sentence.startswith("Too few seeds to tell whether pretraining changes")
    (wanted,) = re.findall(r"takes (\d+) seeds", told.remark)
    # As many as a t test of this spread needs, s.d. of ln 0.8 and ln 0.9.
    spread = (math.log(0.9) - math.log(0.8)) / math.sqrt(2)
    effect = -math.log(0.95) / spread
    assert power(effect, int(wanted), 0.05) >= 0.8 > power(effect, int(wanted) - 1, 0.05)


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


def test_gates_hold_fail_or_are_not_tested(tabulate: Tabulate, scratch: Build) -> None:
    runs = [scratch(seed, seed, 0.1 + seed / 1000) for seed in SEEDS]
    for epochs, share in ((6, 0.8), (8, 1.2)):  # The rule is of half as many more.
        length = {"finetune.epochs": epochs}
        runs += [
            scratch(10 * epochs + seed, seed, share * (0.1 + seed / 1000), **length)
            for seed in SEEDS
        ]
    found = {gate.rule: gate for gate in gates([tabulate(*runs)])}
    longer = found["scratch with 1.5 times the epochs is better than scratch"]
    assert longer.holds
    assert longer.found.startswith("6 against 4 epochs: −20.0 %")
    collapse = found["collapse shows at energy weight 0.1, and not at 0.001"]
    assert not collapse.holds
    assert collapse.found == "no study here tests it"


def test_the_start_is_judged_at_the_most_labels(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = []
    for place, (labels, share) in enumerate(((16, 1.5), (100, 0.8))):
        few = {"finetune.frames": labels}
        for seed in SEEDS:
            error = 0.1 + seed / 1000
            runs.append(scratch(10 * place + seed, seed, error, **few))
            mine = share * error * (1 + seed / 1000)
            runs.append(masked(100 + 10 * place + seed, seed, 0.9, mine, **few))
    rule = "EGNN, TIP3P, masking 0.9: the first force error's interval lies below scratch"
    (gate,) = [gate for gate in gates([tabulate(*runs)]) if gate.rule == rule]
    assert gate.holds
    assert gate.found.startswith("−19.9 %")


@pytest.mark.parametrize(
    ("settings", "water", "force", "holds"),
    [
        ({"dataset.name": "tip3p_water"}, "TIP3P", 0.6, True),
        ({"dataset.name": "tip3p_water"}, "TIP3P", 0.7, False),
        ({"dataset.name": "rpbe_water"}, "RPBE-D3", 1.17, True),
        ({"dataset.name": "n2p2_file", "dataset.path": "w.data"}, "RPBE-D3", 1.28, True),
        # In Hartree/Bohr read as eV/Å, and by a factor of two.
        ({"dataset.name": "rpbe_water"}, "RPBE-D3", 1.225 / 51.42, False),
        ({"dataset.name": "rpbe_water"}, "RPBE-D3", 2.45, False),
    ],
)
def test_forces_of_another_unit_are_noticed(
    settings: dict[str, object],
    water: str,
    force: float,
    holds: bool,  # noqa: FBT001  # one column of the table above
    tabulate: Tabulate,
    scratch: Build,
) -> None:
    runs = [scratch(seed, seed, 0.1, **settings) for seed in SEEDS]
    for run in runs:
        run.points.append(Point("trivial_force_rmse", 0, force))
    found = {gate.rule: gate for gate in gates([tabulate(*runs)]) if " forces of " in gate.rule}
    mine = found.pop(f"the forces of {water} water have the size of the paper's, ±5 %")
    assert mine.holds == holds
    # RPBE-D3 water must be fetched; TIP3P water is always asked for.
    assert [gate.found for gate in found.values()] == ["no study here tests it"] * (
        water == "RPBE-D3"
    )


def test_forces_of_flexible_water_are_not_those_of_the_paper(
    tabulate: Tabulate, scratch: Build
) -> None:
    runs = [scratch(seed, seed, 0.1, **{"dataset.flexible": True}) for seed in SEEDS]
    found = [gate.found for gate in gates([tabulate(*runs)]) if " forces of " in gate.rule]
    assert found == ["no study here tests it"]
