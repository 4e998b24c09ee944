"""Which changes of the code make other work of a trial, and which do not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import analysis
import study
from study.core.hashing import HASHED_FOLDERS, code_alone, hash_sources
from study.datasets.frames import Frames
from study.pipeline.job import Job
from study.planning.study_dir import StudyDir
from study.space.trial import Trial

BOTH_STAGES = """
import json, sys
from pathlib import Path
from study.pipeline.execute import run_job
from study.pipeline.job import Job

root, frames, trial = Path(sys.argv[1]), Path(sys.argv[2]), Job.from_json(json.loads(sys.argv[3]))
for work in (trial.pretraining, trial):
    assert len(list(run_job(work, root, frames))) == work.epochs
ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "study"]
print(json.dumps([module.__file__ for module in ours]))
"""

SHIFTS = "self.shift[rows]"

CODE = '''
"""Module."""

import math  # why

SIZE = 2
"""How large."""
WORDS = """two  # no comment

lines"""


class Thing:
    """A thing."""

    def area(self) -> str:
        """Its area."""
        # A reason.
        return "#" + f"{math.pi * SIZE:.2f}" + '"""'
'''

ALONE = '''
import math
SIZE = 2
WORDS = """two  # no comment

lines"""
class Thing:
    def area(self) -> str:
        return "#" + f"{math.pi * SIZE:.2f}" + '"""'
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's sources, beside that of the analysis."""
    folder = tmp_path / "copy"
    for source in (Path(each.__path__[0]) for each in (study, analysis)):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / source.name, ignore=ignored)
    return folder / study.__name__


def run(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with that copy of the package."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=package.parent,
        env=os.environ | {"PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_comments_docstrings_and_empty_lines_are_no_code() -> None:
    assert code_alone(CODE) == code_alone(ALONE) == ALONE.strip()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("two  # no", "two # no"),
        ("\n\nlines", "\nlines"),
        ("SIZE = 2", "SIZE = 3"),
        ('"#" +', '"##" +'),
        ("        return", "    return"),
    ],
)
def test_all_else_is_code(old: str, new: str) -> None:
    assert old in CODE
    assert code_alone(CODE.replace(old, new)) != code_alone(CODE)


def test_better_words_leave_the_hash_as_it_was(package: Path) -> None:
    before, module = hash_sources(package), package / "graphs" / "edges.py"
    assert before == hash_sources(Path(study.__file__).parent)
    module.write_text('"""Other words."""\n\n# And more of them.\n' + module.read_text())
    assert hash_sources(package) == before


def test_the_name_and_the_folder_of_a_module_count(package: Path) -> None:
    before, module = hash_sources(package), package / "graphs" / "edges.py"
    module.rename(package / "graphs" / "pairs.py")
    renamed = hash_sources(package)
    (package / "graphs" / "pairs.py").rename(package / "models" / "edges.py")
    assert len({before, renamed, hash_sources(package)}) == 3


def test_every_file_that_a_training_step_imports_is_in_the_hash(
    package: Path, tiny: Callable[..., Trial], water: Frames, water_folder: Path, tmp_path: Path
) -> None:
    work = json.dumps(Job("trial", tiny(), water.content_hash()).to_json())
    done = run(package, "-c", BOTH_STAGES, str(tmp_path), str(water_folder), work)
    assert done.returncode == 0, done.stderr
    imported = {Path(file) for file in json.loads(done.stdout)}
    assert {package / "graphs/edges.py", package / "training/loop.py"} <= imported
    assert {file.relative_to(package).parts[0] for file in imported} >= {*HASHED_FOLDERS}
    before = hash_sources(package)
    for file in sorted(imported):
        source = file.read_text()
        file.write_text(f"{source}\nCHANGED = True\n")
        assert hash_sources(package) != before, file
        file.write_text(source)
    assert hash_sources(package) == before


def test_a_study_is_refused_once_the_shifts_of_its_edges_have_another_sign(
    package: Path, small_study: StudyDir
) -> None:
    space, out = str(small_study.root / "ratio.yaml"), str(small_study.root)
    command = ["-m", "study.run", "--space", space, "--profile", "quick", "--out", out, "--dry-run"]
    done = run(package, *command)
    assert done.returncode == 0, done.stderr
    edges = package / "graphs" / "edges.py"
    assert SHIFTS in edges.read_text()
    edges.write_text(edges.read_text().replace(SHIFTS, f"-{SHIFTS}"))
    done = run(package, *command)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the code that decides the numbers has changed since this study began" in done.stderr
