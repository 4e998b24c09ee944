"""Models, tasks and data sets of the user's own; the example is the README's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.fd import calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from jsonschema import Draft7Validator

from study import check, plugins, predict, rerun, run, status
from study.checks.structures import build_graphs, water_box
from study.core import user_code
from study.core.atomic_io import append_json
from study.core.errors import UserError
from study.core.records import JobResult
from study.datasets.frames import Frames
from study.datasets.prepare import prepare
from study.inference.ase_calculator import StudyCalculator
from study.models.potential import Potential
from study.pipeline.execute import run_job_safely
from study.pipeline.job import Job
from study.planning.study_changes import require_same_study
from study.planning.study_dir import StudyDir
from study.space.json_schema import FILE
from study.space.plugin_configs import keep, realized
from study.space.search_space import Space, load_space
from study.space.yaml_loader import read_yaml
from tests.readme import REPOSITORY, example


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the README's example."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "mine.yaml"):
        (tmp_path / name).write_text(example(name))
    return tmp_path


def space(*changes: tuple[list[str], object]) -> Space:
    return load_space("mine.yaml", "quick", changes)


def work(content: Space, kind: str = "trial") -> Job:
    """Of its pretrained trial."""
    trial = Job("trial", content.samples[0], "data", code="code")
    assert trial.pretraining is not None
    return trial if kind == "trial" else trial.pretraining


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", plugins.__all__)
def test_every_public_name_is_there_and_described(name: str) -> None:
    assert getattr(plugins, name).__doc__
    assert plugins.__doc__ is not None
    assert re.search(rf"\b{name}\b", plugins.__doc__)


def test_the_fields_of_graphs_and_models_are_described_as_they_are() -> None:
    described = (plugins.__doc__ or "").partition("\nGraphs\n")[2].partition("\nLayers\n")[0]
    fields = dict(
        re.findall(r"`(\w+)` (\([GNE0-9+, ]+\))(?=:| and)", described.partition("Edges are")[0])
    )
    graph = build_graphs([water_box(1), water_box(2), water_box(3)], 3.0).gather(torch.arange(3))
    names = {*graph.keys()}
    assert names == fields.keys() - {"masked", "given_force"}
    sizes = {"N": len(graph.z), "E": graph.edge_index.shape[1], "G": graph.num_graphs}
    shapes = {name: eval(fields[name], {}, sizes) for name in names}
    assert shapes == {name: tuple(graph[name].shape) for name in names}
    source, target = graph.edge_index
    vectors = graph.pos[target] + graph.shift - graph.pos[source]
    torch.testing.assert_close(plugins.edge_vectors(graph, graph.pos), vectors)
    assert float(vectors.norm(dim=1).max()) < 3
    public = {name for name in {**vars(Potential), **Potential.__annotations__} if name[0] != "_"}
    assert {name for name in public if f"`{name}`" not in described} == set()


def test_configs_of_ones_own_need_no_torch() -> None:
    code = "import sys, study.plugins; assert not {'torch', 'torch_geometric'} & {*sys.modules}"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_example_keeps_every_contract(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(here / "mine.py")]) == 0
    shown = capsys.readouterr().out
    assert {"PairSettings: ok", "PushSettings: ok", "Dimers: ok"} <= set(shown.splitlines())


def test_the_example_runs_and_predicts_without_its_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--space", "mine.yaml", "--profile", "quick", "--dry-run"]) == 0
    assert not (here / "runs").exists()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "study.run", "--space", "mine.yaml", "--profile", "quick"]
    subprocess.run([*command, "--no-report"], env=environment, check=True)
    (here / "mine.py").unlink()
    study = str(here / "runs/studies/mine-quick")
    capsys.readouterr()
    assert status.main([study, "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["counts"] == {"completed": 3}
    assert state["metric"] == "val_worst_forces"
    assert [trial["label"] for trial in state["trials"]] == [
        "pair scratch, seed 0",
        "pair push size=0.05, seed 0",
        "pair push size=0.1, seed 0",
    ]
    shutil.rmtree(state["trials"][1]["folder"])
    assert rerun.main([study, "1"]) == 0
    assert "epoch 4/4" in capsys.readouterr().out
    dimer = Atoms("OH", [[0, 0, 0], [1.2, 0, 0]], cell=10 * np.eye(3), pbc=True)
    dimer.write(here / "dimer.xyz", format="extxyz")
    assert predict.main([study, "dimer.xyz", "--json", "--export", "model.pt2"]) == 0
    found = json.loads(capsys.readouterr().out)
    dimer.calc = StudyCalculator(study)
    assert found["energy"] == pytest.approx(dimer.get_potential_energy(), rel=1e-5)
    assert np.abs(found["forces"]).max() > 0
    dimer.calc = StudyCalculator(study, precision="float64")
    numeric = calculate_numerical_stress(dimer, eps=1e-5)
    np.testing.assert_allclose(dimer.get_stress(), numeric, atol=1e-9)
    assert np.abs(numeric).max() > 1e-6
    before = dimer.get_potential_energy()
    BFGS(FrechetCellFilter(dimer), logfile=None).run(fmax=0.0, steps=5)
    assert dimer.get_potential_energy() < before
    assert predict.main([study]) == 0
    assert "predictions of 3 trials" in capsys.readouterr().out


def test_what_an_address_means_to_a_data_set_of_ones_own_is_for_it_to_say(here: Path) -> None:
    edit(here / "mine.py", "    frames: int", '    path: str = ""\n    frames: int')
    changes = ["--set", "trial.dataset.path=nowhere://set"]
    assert run.main(["--space", "mine.yaml", "--profile", "quick", "--dry-run", *changes]) == 0


def test_code_that_has_changed_is_other_work(here: Path) -> None:
    before = {kind: work(space(), kind).key for kind in ("trial", "pretrain")}
    edit(here / "mine.py", "nn.SiLU(), nn.Linear", "nn.Tanh(), nn.Linear")
    after = {kind: work(space(), kind).key for kind in ("trial", "pretrain")}
    assert before["trial"] != after["trial"]
    assert before["pretrain"] != after["pretrain"]


def test_the_place_of_a_file_changes_nothing(here: Path) -> None:
    before = work(space()).key
    (here / "deep").mkdir()
    (here / "mine.py").rename(here / "deep/mine.py")
    edit(here / "mine.yaml", "mine.py", "deep/mine.py")
    assert work(space()).key == before


def test_a_file_that_a_trial_does_not_use_does_not_name_it(here: Path) -> None:
    (here / "task.py").write_text(example("mine.py"))
    edit(here / "mine.yaml", "push, code: mine.py", "push, code: task.py")
    finetuned = Job("trial", space().grid()[0], "data", code="code")
    assert finetuned.pretraining is None
    before, pretrained = finetuned.key, work(space()).key
    edit(here / "task.py", '"way back"', '"back"')
    assert Job("trial", space().grid()[0], "data", code="code").key == before
    assert work(space()).key != pretrained


def test_a_study_whose_code_has_changed_is_refused(here: Path) -> None:
    folder = StudyDir(here / "runs", "mine-quick")
    folder.write(space(), "sqlite:///nowhere.db", {})
    append_json(folder.journal, {"event": "started"})
    require_same_study(folder, space())
    edit(here / "mine.py", "size=self.frames", "size=(self.frames)")
    with pytest.raises(UserError, match=r"trial\.dataset\.sha256 was .*--name mine-quick-2"):
        require_same_study(folder, space())


def test_a_kept_copy_that_somebody_has_changed_is_not_run(here: Path) -> None:
    planned = space()
    keep(planned.resolved(), here / "runs")
    (kept,) = (here / "runs" / "code").iterdir()
    (trial, *_) = planned.grid()
    assert realized(trial, here / "runs").model.build()
    kept.write_text(f"open({str(here / 'ran')!r}, 'w')\n{kept.read_text()}")
    with pytest.raises(UserError, match="is not the code that this was planned with"):
        realized(trial, here / "runs")
    assert not (here / "ran").exists()


def test_defaults_of_the_class_count(here: Path) -> None:
    edit(
        here / "mine.py",
        '    name: Literal["pair"]',
        '    name: Literal["pair"]\n    cutoff: float = 2.5',
    )
    edit(here / "mine.yaml", ", cutoff: 3.0", "")
    trial = space().samples[0]
    assert trial.model.cutoff == 2.5
    assert trial.model.model_dump()["stiffness"] == 1.0


@pytest.mark.parametrize(
    ("old", "new", "place", "rule"),
    [
        ("hidden: 16", "hiden: 16", "5: trial.model.hiden", "did you mean `hidden`?"),
        ("hidden: 16", "stiffness: 0", "5: trial.model.stiffness", "must be > 0.0, but got 0"),
        ("hidden: 16", "hidden: x", "5: trial.model.hidden", "must be a whole number"),
        ("size: {choice", "sise: {choice", "7: trial.pretrain.task.sise", "did you mean `size`?"),
        ("[0.05, 0.1]", "[0.05, -1]", "7: trial.pretrain.task.size", "must be > 0.0"),
        ("hidden: 16", "max_neighbors: 5", "5: trial.model.max_neighbors", "unknown key"),
        ("name: pair, ", "", "5: trial.model.name", "is required"),
        (
            "name: pair",
            "name: pear",
            "5: trial.model.code",
            "derived from `study.plugins.ModelConfig`",
        ),
        ("pair, code: mine.py", "pair, code: our.py", "5: trial.model.code", "cannot be read"),
        ("pair, code: mine.py", "pair, code: no_such", "5: trial.model.code", "ModuleNotFound"),
        ("name: pair", "name: {choice: [pair]}", "5: trial.model.code", "are no holes"),
        ("hidden: 16", "sha256: ab", "5: trial.model.code", "not that which the space says"),
        ("{name: push", "{name: pair", "7: trial.pretrain.task.code", "`study.plugins.TaskConfig`"),
    ],
)
def test_a_bad_setting_is_answered_with_line_key_and_rule(
    here: Path, old: str, new: str, place: str, rule: str
) -> None:
    edit(here / "mine.yaml", old, new)
    with pytest.raises(UserError) as refused:
        space()
    assert any(
        problem.startswith(f"mine.yaml:{place}: ") and rule in problem
        for problem in refused.value.problems
    ), refused.value.problems


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("import beside", "one whole file"),
        ("from beside import thing", "one whole file"),
        ("from . import thing", "one whole file"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_code_that_cannot_be_run_is_answered_in_a_line(here: Path, text: str, rule: str) -> None:
    (here / "beside.py").write_text("thing = 1")
    (here / "mine.py").write_text(text)
    with pytest.raises(UserError, match=rule) as refused:
        space()
    assert "\n" not in str(refused.value)


OWN_NAMES = ("pair", "push", "dimers", "worst_forces")


def test_an_installed_package_is_named_by_all_its_sources(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = here / "site/pairs_of_mine"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (here / "mine.py").rename(package / "pair.py")
    information = here / "site/pairs_of_mine-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pairs-of-mine\nVersion: 1.0\n"
    )
    names = "".join(f"{name} = pairs_of_mine.pair\n" for name in OWN_NAMES)
    (information / "entry_points.txt").write_text(f"[pretraining_study]\n{names}")
    monkeypatch.syspath_prepend(str(here / "site"))
    edit(here / "mine.yaml", ", code: mine.py", "")
    model = space().samples[0].model.model_dump()
    assert model["code"] == "pairs_of_mine.pair"
    before = model["sha256"]
    (package / "other.py").write_text("1")
    user_code._version_of.cache_clear()
    assert space().samples[0].model.model_dump()["sha256"] != before
    (package / "other.py").unlink()
    user_code._version_of.cache_clear()
    assert space().samples[0].model.model_dump()["sha256"] == before


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("trainable", 1, "trial.model: `trainable` counts the layers of a model, but Pair names"),
        ("layer_decay", 0.9, "trial.model: `layer_decay` counts the layers"),
        ("trainable", "readout", ""),
    ],
)
def test_layers_that_nobody_named_are_refused_before_the_start(
    here: Path, capsys: pytest.CaptureFixture[str], key: str, value: object, rule: str
) -> None:
    change = f"trial.finetune.{key}={value}"
    code = run.main(["--space", "mine.yaml", "--dry-run", "--set", change])
    assert (code, rule in capsys.readouterr().err) == (2 if rule else 0, True)
    assert not (here / "runs").exists()


def test_a_model_that_needs_the_whole_batch_is_refused_with_workers(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(
        here / "mine.py",
        "    def atomic_energies",
        "    independent_frames = False\n\n    def atomic_energies",
    )
    code = run.main(["--space", "mine.yaml", "--dry-run", "--set", "resources.workers=2"])
    assert (code, "`workers` must be 1 with Pair" in capsys.readouterr().err) == (2, True)


def test_a_model_that_cannot_be_built_is_refused_before_the_start(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(here / "mine.py", "nn.Linear(1, settings.hidden)", "nn.Linear(1, settings.width)")
    assert run.main(["--space", "mine.yaml", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "AttributeError: 'PairSettings' object has no attribute 'width' (" in error
    assert f"{here}/mine.py:28, in __init__: `self.edge = nn.Sequential(" in error


def test_an_error_in_a_step_is_told_with_its_lines(here: Path) -> None:
    edit(here / "mine.py", "features = self.embedding(graph)", "features = self.embeding(graph)")
    planned, root = space(), here / "runs"
    keep(planned.resolved(), root)
    trial = planned.grid()[1]
    frames = prepare(trial.dataset, root, 1, lambda *_: None)
    work = Job("trial", trial, Frames.load(frames).content_hash()).pretraining
    assert work is not None
    (result,) = run_job_safely(work, root, frames)
    assert isinstance(result, JobResult)
    assert result.reason == (
        "AttributeError: 'Pair' object has no attribute 'embeding' "
        f"({here}/mine.py:35, in atomic_energies: `features = self.embeding(graph)`; called from "
        f"{here}/mine.py:66, in way_back: `return (model.vectors(graph) + "
        "graph.push).square().mean()`)"
    )


def test_editors_take_own_code_and_still_see_typing_errors(here: Path) -> None:
    schema = Draft7Validator(json.loads(FILE.read_text()))
    assert schema.is_valid(read_yaml(here / "mine.yaml"))
    edit(here / "mine.yaml", "pair, code: mine.py", "egnn, stiffness: 1")
    assert not schema.is_valid(read_yaml(here / "mine.yaml"))


def test_a_study_is_read_again_without_its_code(here: Path) -> None:
    resolved, file = json.loads(json.dumps(space().resolved())), here / "study.json"
    trials, before = space().grid(), sys.modules.keys()
    (here / "mine.py").unlink()
    assert Space.from_resolved(file, resolved).grid() == trials
    assert sys.modules.keys() == before
    again = Job.from_json(json.loads(json.dumps(Job("trial", trials[1], "data").to_json())))
    assert again.trial == trials[1]
