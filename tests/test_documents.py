"""What the documents say is there: links, spaces, keys and exit codes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from study import run
from study.core.config import Config, Own
from tests.readme import DOCUMENTS, REPOSITORY

SPACES = REPOSITORY / "search_spaces"


def table(document: Path, heading: str) -> list[list[str]]:
    """Cells of the rows of the first table below a heading."""
    below = document.read_text().partition(f"{heading}\n")[2]
    rows = re.search(r"(^\|.*\n)+", below, re.M)
    assert rows is not None, heading
    lines = rows[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_shipped_space_is_listed_with_its_cost() -> None:
    rows = table(SPACES / "README.md", "## Shipped spaces")
    listed = {row[0].strip("`"): row[2:] for row in rows}
    assert {*listed} == {path.stem for path in SPACES.glob("*.yaml")}
    for name, (trials, hours) in listed.items():
        head = (SPACES / f"{name}.yaml").read_text()
        said = re.search(
            r"# Cost, quick: (\d+) trials.*?(?:([\d.]+) core-hours|core-minutes)", head
        )
        assert said is not None, name
        assert (trials, hours) == (said[1], said[2] or "0.1"), name


def settings_classes() -> Iterator[type[Config]]:
    places = (
        "models.config",
        "tasks.config",
        "tasks.pretext_config",
        "training.config",
        "datasets.config",
    )
    for place in places:
        module = importlib.import_module(f"study.{place}")
        for each in vars(module).values():
            mine = isinstance(each, type) and each.__module__ == module.__name__
            if mine and issubclass(each, Config) and not issubclass(each, Own):
                yield each
    for name in ("Settings", "Search", "Tune", "Resources"):
        yield getattr(importlib.import_module("study.space.settings"), name)
    yield importlib.import_module("study.space.search.stopping").EarlyStopping


@pytest.mark.parametrize("kind", [*settings_classes()], ids=lambda kind: kind.__name__)
def test_every_key_is_on_the_page_about_spaces(kind: type[Config]) -> None:
    page = (SPACES / "README.md").read_text()
    missing = [name for name in kind.model_fields if not re.search(rf"\b{name}\b", page)]
    assert not missing


def test_exit_codes_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--help"])
    codes = re.findall(r"^  (\d+) ", capsys.readouterr().out, re.M)
    text = (REPOSITORY / "study/README.md").read_text().partition("| exit code |")[2]
    assert codes == re.findall(r"^\| (\d+) \|", text, re.M)


def anchors(document: Path) -> set[str]:
    """What GitHub makes of headings."""
    heads = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = (document.parent / path) if path else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 200
