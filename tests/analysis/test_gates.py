"""The rules for the quick profiles."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.gates import gates
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


def test_gates_hold_fail_or_are_not_tested(tabulate: Tabulate, scratch: Build) -> None:
    runs = [scratch(seed, seed, 0.1 + seed / 1000) for seed in SEEDS]
    for epochs, share in ((6, 0.8), (8, 1.2)):  # The rule is of half as many more.
        length = {"finetune.epochs": epochs}
        runs += [
            scratch(10 * epochs + seed, seed, share * (0.1 + seed / 1000), **length)
            for seed in SEEDS
        ]
    found = {gate.rule: gate for gate in gates([tabulate(*runs)])}
    longer = found["from scratch, 1.5 times the epochs are better"]
    assert longer.holds
    assert longer.numbers.startswith("6 vs. 4 epochs: −20.0 %")
    collapse = found["training collapses at energy weight 0.1, and not at 0.001"]
    assert not collapse.holds
    assert collapse.numbers == "no study here tests it"


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
    rule = "EGNN, TIP3P, masking 0.9: the interval of the first force error lies below 0"
    (gate,) = [gate for gate in gates([tabulate(*runs)]) if gate.rule == rule]
    assert gate.holds
    assert gate.numbers.startswith("−19.9 %")


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
    assert [gate.numbers for gate in found.values()] == ["no study here tests it"] * (
        water == "RPBE-D3"
    )


def test_forces_of_flexible_water_are_not_those_of_the_paper(
    tabulate: Tabulate, scratch: Build
) -> None:
    runs = [scratch(seed, seed, 0.1, **{"dataset.flexible": True}) for seed in SEEDS]
    found = [gate.numbers for gate in gates([tabulate(*runs)]) if " forces of " in gate.rule]
    assert found == ["no study here tests it"]
