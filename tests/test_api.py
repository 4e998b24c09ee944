"""Studies from Python: the same numbers as the tables and the journal have."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms

from study import api
from study.core.errors import UserError
from study.inference.predictor import TrainedModel
from study.inference.trained_model import resolve_trained_model
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from tests.recorded_study import record_study

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def study(small_study: StudyDir, tmp_path_factory: pytest.TempPathFactory) -> api.Study:
    """The small study with its records in MLflow."""
    root = tmp_path_factory.mktemp("api") / "runs"
    shutil.copytree(small_study.root, root)
    return api.Study(record_study(StudyDir(root, small_study.name)).path)


def test_frames_have_what_the_journal_has(study: api.Study) -> None:
    entries = Journal(study.folder / "journal.jsonl", "val_force_rmse").entries()
    errors = [e.result.metrics["test_force_rmse"] for e in entries.values() if e.result]
    trials = study.trials()
    assert np.allclose(trials.test_force_rmse, errors, rtol=1e-15)
    assert trials.attrs["units"]["test_force_rmse"] == "eV/Å"
    assert trials.arm.nunique() == 2
    progress = study.progress()
    assert list(progress.best) == [min(entry.values) for entry in entries.values()]
    assert set(progress.status) == {"completed"}
    assert study.state == "done"
    first = study.curves().query("metric == 'val_force_rmse'")
    assert sorted(first.value) == sorted(
        value for entry in entries.values() for value in entry.values
    )


def test_changes_are_those_of_the_means_over_seeds(study: api.Study) -> None:
    trials, changes = study.trials(), study.changes()
    forces = changes[changes.quantity == "force_rmse"].set_index("arm")["mean"]
    by_hand = trials.groupby("arm").test_force_rmse.mean()
    assert np.allclose(forces.reindex(by_hand.index), 1000 * by_hand)
    assert {"arm", "quantity", "verdict"} <= set(study.verdicts())


def test_every_figure_is_a_matplotlib_figure(study: api.Study, tmp_path: Path) -> None:
    figures = study.figures()
    assert figures
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_the_calculator_and_the_module_are_the_best_model(study: api.Study) -> None:
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[9, 9, 9], pbc=True)
    water.calc = study.calculator()
    trained = TrainedModel(resolve_trained_model(study.folder), precision="float32")
    graph, model = trained.graph([water]), study.model()
    found = model(graph)
    energy, forces = water.get_potential_energy(), water.get_forces()
    assert np.allclose(found.forces.detach().numpy(), forces, atol=1e-4)
    whole = found.energy.detach().double() + model.reference_energy(graph)
    assert np.allclose(whole.numpy(), [energy], atol=1e-4)


def test_a_space_can_be_read_and_changed() -> None:
    space = api.load_space("masking_ratio", settings={"trial.finetune.epochs": 3, "seeds": [7]})
    assert {trial.finetune.epochs for trial in space.grid()} == {3}
    assert {trial.seed for trial in space.grid()} == {7}
    assert "masking_ratio" in api.spaces()
    with pytest.raises(UserError, match="epoch"):
        api.load_space("masking_ratio", settings={"trial.finetune.epoks": 3})


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study here"):
        api.Study(tmp_path)


def test_wrong_input_raises_the_line_of_the_command(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("question: What?\nseeds: [0]\ntrial: {}\n")
    with pytest.raises(UserError, match=r"wrong\.yaml"):
        api.Study.run(wrong, out=tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()


def test_a_finished_study_is_not_repeated(study: api.Study) -> None:
    before = study.trials()
    pd.testing.assert_frame_equal(api.Study(study.folder).trials(), before)


@pytest.mark.long
def test_a_notebook_runs_a_study_and_keeps_what_it_shows(
    small_study: StudyDir, tmp_path: Path
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    shutil.copy(small_study.root / "ratio.yaml", tmp_path / "tiny.yaml")
    cells = [
        "from study.api import Study",
        "study = Study.run('tiny.yaml', options=['--no-report'])",
        "study.changes()",
        "study.figures()['changes']",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=600, resources=place).execute()
    _, bar, changes, figure = (cell.outputs for cell in book.cells)
    assert [each.data["text/plain"].split(",")[0] for each in bar] == ["4 of 4 trials"]
    assert "force_rmse" in changes[0].data["text/html"]
    assert "image/png" in figure[0].data
