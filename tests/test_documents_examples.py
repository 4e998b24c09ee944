"""The spaces and programs that stand in the documents."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import optuna
import pytest

from study import run
from study.space.distributions import listed
from study.space.ranges import described
from study.space.search.samplers import as_config
from study.space.search.stopping import OptunaPruner
from study.space.search_space import Space, load_space
from study.space.yaml_loader import read_yaml
from tests.readme import Block, blocks, example, whole_space, write_examples


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the files of the documents."""
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = """\
question: Do the lines of a document fit into a space?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 32, trajectories: 10, frames: 100}
  model: {name: egnn}
  pretrain: {task: {name: denoising}, epochs: 1, batch_size: 1}
  finetune: {task: {name: energy_forces}, epochs: 1, batch_size: 1}
profiles:
  lines:
"""


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.place)
def test_lines_of_spaces_are_valid(block: Block, folder: Path) -> None:
    whole = block.text.startswith("question:")
    top = re.match(r"(search|early_stopping|metric|seeds|trial|tune):", block.text)
    indent = "    " if top else "      "
    lines = "".join(f"{indent}{line}\n" for line in block.text.splitlines())
    path = folder / "lines.yaml"
    path.write_text(block.text if whole else BASE + ("" if top else "    trial:\n") + lines)
    profiles = path.read_text().partition("profiles:")[2]
    for profile in re.findall(r"^  (\w+):", profiles, re.M) or [None if whole else "quick"]:
        load_space(str(path), profile)


PLACES = {
    "lr": "finetune.lr",
    "hidden": "model.hidden",
    "layers": "model.layers",
    "task": "pretrain",
    "masking_ratio": "pretrain.masking.task.masking_ratio",
}
"""Names in a script or a sweep, and in the space that is the same."""
KINDS = {
    "log_uniform_values": (("loguniform", "min", "max"),),
    "int_uniform": (("integer", "min", "max"),),
    "q_uniform": (("qinteger", "min", "max", "q"), ("quniform", "min", "max", "q")),
}


def translated(folder: Path) -> Space:
    path = folder / "translated.yaml"
    path.write_text(example("the same as a space"))
    return load_space(str(path), None)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_script_of_optuna_is_translated_into_the_same_distributions(folder: Path) -> None:
    space, program = translated(folder), example("a script").replace("n_trials=40", "n_trials=20")
    held: dict[str, Any] = {"train": lambda *settings: len(str(settings))}
    exec(program, held)
    theirs, ours = dict[str, str](), dict[str, str]()
    for trial in held["study"].trials:
        theirs |= {name: str(each) for name, each in trial.distributions.items()}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        space.propose(asked := study.ask())
        ours |= {name: str(each) for name, each in asked.distributions.items()}
    assert {PLACES[name]: each for name, each in theirs.items()} == ours
    first = held["study"].trials[0].params
    assert space.starts == [{PLACES[name]: value for name, value in first.items()}]
    search, stopping = space.settings.search, space.settings.early_stopping
    assert search is not None
    made = as_config(search.sampler).build(search.seed)
    assert vars(made)["_group"] == vars(held["sampler"])["_group"]
    assert isinstance(stopping, OptunaPruner)
    assert str(vars(stopping.build(20))) == str(vars(held["pruner"]))


def test_a_sweep_is_translated_into_the_same_distributions(folder: Path) -> None:
    words = dict(listed(translated(folder).body))
    path = folder / "sweep.yaml"
    path.write_text(example("a sweep"))
    sweep = read_yaml(path)
    for name, given in sweep["parameters"].items():
        if "values" in given:
            expected = {", ".join(given["values"])}
        else:
            kinds = KINDS[given["distribution"]]
            expected = {described(kind, [given[key] for key in keys]) for kind, *keys in kinds}
        assert words[PLACES[name]] in expected
    assert sweep["parameters"].keys() == PLACES.keys()


def test_a_wrong_key_is_answered_as_the_document_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "my_space.yaml").write_text(whole_space().replace("cutoff", "cutof"))
    assert run.main(["--space", "my_space.yaml", "--profile", "quick", "--dry-run"]) == 2
    (shown,) = [block.text for block in blocks("text") if "cutof" in block.text]
    assert shown.strip() in capsys.readouterr().err


def member(module: str, name: str) -> object:
    """What `from module import name` gives."""
    holder: dict[str, object] = {}
    exec(f"from {module} import {name}", holder)
    return holder[name]


def imported(tree: ast.Module) -> dict[str, object]:
    """What a program imports, by the names that it gives them."""
    found: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = member(str(node.module), alias.name)
    return found


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # MLflow's own
@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_programs_import_what_exists(block: Block) -> None:
    tree = ast.parse(block.text)
    names = imported(tree)
    for node in ast.walk(tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        first, *rest = called.split(".")
        if first in names and all(part.isidentifier() for part in rest):
            found = names[first]
            for part in rest:
                found = getattr(found, part)
