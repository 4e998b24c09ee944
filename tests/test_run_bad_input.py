"""Whatever a space or a name says, the answer is a plan, or lines that name what is wrong."""

from __future__ import annotations

import os
import random
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study import run
from study.console.run_options import parse_options
from study.core.errors import UserError
from study.planning.study_changes import require_same_study
from study.planning.study_dir import StudyDir
from study.space.search_space import load_space

SPACE = """\
question: Which ratio?
seeds: [0, 1]
search: {trials: 4}
early_stopping: {grace_epochs: 1}
resources: {cpus: 1}
trial:
  dataset: {name: tip3p_water, molecules: 32, trajectories: 10, frames: 100}
  split: {by: frame, test: 0.1}
  model: {name: egnn, hidden: 32, layers: 3, cutoff: 3.4}
  pretrain:
    task: {name: masking, masking_ratio: {choice: [0.25, 0.5]}}
    epochs: 5
    batch_size: 8
  finetune:
    task: {name: energy_forces}
    epochs: 20
    batch_size: 2
    lr: {loguniform: [1e-4, 1e-2]}
profiles:
  quick:
"""
SEED = 6
VALUES = re.compile(r"(?<=: )[^{}\[\],\n]+|(?<=\[)[^{}\[\],\n]+")
BAD = ("-1", "nan", ".inf", "1e400", "word", "[]", "{}", "[[1]]", "{a: 1}", "''", "../x", "*x",
       "!!python/object:os.system x", "\x00", "{choice: []}", "{uniform: [2, 1]}")  # fmt: skip
NAMES = (
    *("..", ".", "../x", "../../etc/passwd", "a/../b", "a/b", "/etc", "/", "\\", "a\\b", "..\\x"),
    *("~", "~root", "$HOME", "%2e%2e%2f", "a\x00b", "a\nb", " ", "", "-x", ".hidden", "_x", "a b"),
    *("a" * 65, "ä", "a:b", "a*", "a?", "file://x", "con|nul", "a;b", "`a`", "<b>", "a'", 'a"'),
)


def problems(text: str) -> list[str]:
    """Of a space; each begins with its file and line, and nothing but it was written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "space.yaml"
        path.write_text(text)
        found: list[str] = []
        try:
            load_space(str(path), "quick")
        except UserError as error:
            found = list(error.problems)
        place = re.compile(re.escape(f"{path}:") + r"\d+: [^\n]+")
        assert [each for each in found if not place.fullmatch(each)] == []
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        return found


def test_every_value_may_be_wrong() -> None:
    places, rng = [match.span() for match in VALUES.finditer(SPACE)], random.Random(SEED)
    cases = [
        f"{SPACE[:start]}{bad}{SPACE[end:]}" for start, end in places for bad in rng.sample(BAD, 4)
    ]
    refused = [case for case in cases if problems(case)]
    assert len(cases) > 80
    # A few, such as the question, may say anything.
    assert len(refused) > 0.75 * len(cases)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_a_space_that_was_cut_up_is_read_or_refused(data: st.DataObject) -> None:
    lines = SPACE.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "double", "indent", "swap", "character"])):
            case "drop":
                lines[place] = ""
            case "double":
                lines[place] *= 2
            case "indent":
                lines[place] = data.draw(st.sampled_from(["", " ", "  ", "\t"])) + lines[place]
            case "swap":
                other = data.draw(st.integers(0, len(lines) - 1))
                lines[place], lines[other] = lines[other], lines[place]
            case "character" if lines[place]:
                at = data.draw(st.integers(0, len(lines[place]) - 1))
                new = data.draw(st.characters(codec="utf-8"))
                lines[place] = lines[place][:at] + new + lines[place][at + 1 :]
    problems("".join(lines))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stays_inside_the_folder(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    code = run.main(
        ["--space", str(tmp_path / "space.yaml"), "--profile", "quick", "--dry-run",
         "--out", str(tmp_path / "runs"), f"--name={name}"]
    )  # fmt: skip
    if name == "":
        # No name at all: that of the space.
        assert code == 0
        return
    assert code == 2
    assert "must be letters, digits" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


def study_in(tmp_path: Path) -> StudyDir:
    (tmp_path / "space.yaml").write_text(SPACE)
    return StudyDir(tmp_path / "runs", "name")


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study_in(tmp_path)
    space = load_space(str(tmp_path / "space.yaml"), "quick")
    folder.write(space, "sqlite:///x.db", {})
    require_same_study(folder, space)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(UserError, match=f"belongs to user {me}, not to you"):
        require_same_study(folder, space)


def test_a_folder_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = study_in(tmp_path)
    space = load_space(str(tmp_path / "space.yaml"), "quick")
    (tmp_path / "elsewhere").mkdir()
    folder.path.parent.mkdir(parents=True)
    folder.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link to"):
        require_same_study(folder, space)


def test_a_password_is_written_nowhere(tmp_path: Path) -> None:
    folder = study_in(tmp_path)
    space = load_space(str(tmp_path / "space.yaml"), "quick")
    uri = "https://me:secret@host:5000"
    for arguments in (["--tracking-uri", uri], [f"--tracking-uri={uri}"]):
        command = parse_options(["--space", "x.yaml", *arguments]).command
        assert "host:5000" in command
        folder.write(space, uri, {}, command)
        assert "secret" not in "".join(path.read_text() for path in folder.path.iterdir())
