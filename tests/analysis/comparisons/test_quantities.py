"""Studies of what is no force: a property of molecules, or energies alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.claims.findings import findings
from analysis.comparisons.error_tables import early_errors, final_errors, tabled_errors
from analysis.comparisons.quantities import charted, quantities, tabled
from analysis.comparisons.training_curves import convergence, stability
from analysis.figures import curves
from analysis.gates import gates
from analysis.html.grids import error_grid
from analysis.html.headline import headline
from analysis.html.page import write_report
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study
from analysis.statistics.verdict import Verdict

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(4)


def of(run: Run, names: tuple[str, ...]) -> Run:
    """The same run with errors of these names in place of the force's and the energies'."""
    points = []
    for point in run.points:
        begin, found, rest = point.metric.partition("force_rmse")
        if found and not rest:
            points += [point._replace(metric=f"{begin}{name}") for name in names]
        elif not point.metric.endswith("_rmse"):
            points.append(point)
    return Run(run.run_id, run.status, run.started, run.ended, run.params, run.tags, points)


@pytest.fixture
def study(tabulate: Tabulate, scratch: Build, masked: Build, pretrained: Build) -> Tabulate:
    def build(metric: str, *names: str) -> Study:
        runs = [of(scratch(seed, seed, 0.1 + seed / 100), names) for seed in SEEDS]
        for seed in SEEDS:
            error = 0.9 * (0.1 + seed / 100) * (1 + seed / 1000)
            runs += [of(masked(10 + seed, seed, 0.5, error), names), pretrained(seed, 0.5, 0.3)]
        return tabulate(*runs, metric=metric)

    return build


def test_a_property_is_reported_in_its_unit(study: Tabulate) -> None:
    orbital = study("val_homo_mae", "homo_rmse", "homo_mae")
    assert [(q.name, q.label, q.unit) for q in quantities(orbital)] == [
        ("homo_mae", "HOMO MAE", "meV"),
        ("homo_rmse", "HOMO RMSE", "meV"),
    ]
    (polarizability, _) = quantities(study("val_alpha_mae", "alpha_rmse", "alpha_mae"))
    assert (polarizability.unit, polarizability.scale) == ("a0³", 1)


def test_what_pretraining_does_to_a_property_is_told(study: Tabulate) -> None:
    orbital = study("val_homo_mae", "homo_rmse", "homo_mae")
    bare, mine = final_errors(orbital).query("quantity == 'homo_mae'").to_dict("records")
    assert bare["mean"] == pytest.approx(1000 * np.mean([0.1, 0.11, 0.12, 0.13]))
    assert bare["trivial"] == pytest.approx(600)
    assert mine["change"] == pytest.approx(-10, abs=0.2)
    assert mine["verdict"] == "lower"
    assert early_errors(orbital).change.notna().any()
    found = headline(orbital)
    assert found.sentence.startswith("Masking 0.5 lowers the test HOMO MAE by ")
    assert [title for title, _ in found.details] == [
        "Final HOMO MAE",
        "Final HOMO RMSE",
        "HOMO MAE at the first evaluation",
    ]
    assert set(convergence(orbital).reference) == {"from scratch"}
    assert list(stability(orbital).n) == [4, 4]


def test_energies_alone_are_judged_by_the_metric_of_the_study(study: Tabulate) -> None:
    names = ("energy_rmse", "energy_mae", "frame_energy_rmse", "frame_energy_mae")
    energies = study("val_energy_mae", *names)
    assert [(q.name, q.unit) for q in charted(energies)] == [
        ("energy_mae", "meV/atom"),
        ("energy_rmse", "meV/atom"),
    ]
    assert {q.unit for q in quantities(energies) if q.per_frame} == {"meV/frame"}
    drawn = [drawing for drawing in curves.drawings(energies) if "energy_mae" in drawing.name]
    assert drawn[0].shown.value.max() == pytest.approx(1000 * 0.13 * 4**0.75)


def test_errors_of_stresses_stand_in_the_table_beside_those_that_judge(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    stresses = [Point("test_stress_rmse", 0, 0.002), Point("trivial_stress_rmse", 0, 0.005)]
    bare, other = scratch(0, 0, 0.1), masked(1, 0, 0.5, 0.2)
    bare.points.extend(stresses)
    found = tabulate(bare, other)
    assert "stress_rmse" not in {q.name for q in quantities(found)}
    grid = error_grid(tabled_errors(found), tabled(found))
    place = [column.label for column in grid.columns].index("Stress RMSE")
    assert grid.columns[place].unit == "meV/Å³"
    assert [row[place].text for row in grid.rows] == ["2.00", "–", "5.00"]


def test_a_property_makes_a_whole_report(study: Tabulate, tmp_path: Path) -> None:
    orbital = study("val_homo_mae", "homo_rmse", "homo_mae")
    page = write_report([tmp_path], tmp_path / "report").read_text()
    assert "Masking 0.5 lowers the test HOMO MAE by " in page
    assert "validation HOMO MAE (meV)" in page or "Validation HOMO MAE (meV)" in page
    assert "force" not in page.partition("The papers’ claims")[0].lower().partition("<body>")[2]
    assert all(finding.verdict == Verdict.NOT_RUN for finding in findings([orbital]))
    assert all(gate.numbers == "no study here tests it" for gate in gates([orbital]))
