"""The spaces and programs that stand in the documents."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from study import run
from study.space.search_space import load_space
from tests.readme import Block, blocks, whole_space, write_examples


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
    top = re.match(r"(search|metric|seeds|trial|tune):", block.text)
    indent = "    " if top else "      "
    lines = "".join(f"{indent}{line}\n" for line in block.text.splitlines())
    path = folder / "lines.yaml"
    path.write_text(block.text if whole else BASE + ("" if top else "    trial:\n") + lines)
    for profile in re.findall(r"^  (\w+):", path.read_text().partition("profiles:")[2], re.M) or [
        "quick"
    ]:
        load_space(str(path), profile)


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
