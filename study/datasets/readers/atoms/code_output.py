"""Outputs of quantum chemistry codes that were cut off, as a job leaves them that is killed.

ASE takes the half of a number at the end for a number, and leaves out a last step that lacks
something, or the whole file. Here whole steps are read, and it is told that more may have been.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.datasets.parsing.guard import guarded, printable
from study.datasets.parsing.text import opened_bytes

if TYPE_CHECKING:
    from ase import Atoms

HEAD = 8_000
"""Bytes in which a code tells its name."""


@dataclass(frozen=True)
class Code:
    """What a code writes.

    Args:
        name: that it begins with; an OUTCAR is told by its file name.
        energy: in a line of each step.
        end: in one of the last lines of a run that has ended in order.
    """

    name: bytes
    energy: bytes
    end: bytes


VASP = Code(b"", b"FREE ENERGIE OF THE ION-ELECTRON SYSTEM", b"General timing and accounting")
GAUSSIAN = Code(b"Entering Gaussian System", b"SCF Done:", b"Normal termination of Gaussian")
CODES = (
    Code(b"Program PWSCF", b"!    total energy", b"JOB DONE."),
    GAUSSIAN,
    Code(b"* O   R   C   A *", b"FINAL SINGLE POINT ENERGY", b"ORCA TERMINATED NORMALLY"),
)


def remarks(file: Path) -> list[str]:
    """What to say of an output that was cut off; nothing of any other file."""
    with guarded(file):
        steps = _steps_of_cut(file)
    if steps is None:
        return []
    return [
        f"{printable(file.name)} ends before its program did, after {steps} energies: of its steps "
        "those that are whole are read"
    ]


def frames(file: Path, read: Callable[[Path], Iterator[Atoms]]) -> Iterator[Atoms]:
    """The frames of a file, whole steps alone if it is an output that was cut off.

    Args:
        file: of any kind, not zipped.
        read: reads it.
    """
    _require_one_orientation(file)
    steps = _steps_of_cut(file)
    if steps is None:
        yield from read(file)
        return
    made: list[Atoms] = []
    with _whole_lines(file) as whole:
        try:
            made.extend(read(whole))
        # ASE stumbles over the last step in many ways; over an earlier one it must not.
        except Exception:
            if not 0 < len(made) >= steps - 1:
                raise
    if made and not _is_whole(*made[-2:]):
        made.pop()
    yield from made


def _require_one_orientation(file: Path) -> None:
    """Refuse an output of Gaussian whose positions are turned against its forces.

    Raises:
        ValueError: if it has forces, and positions in the standard orientation alone.
    """
    if not file.is_file():
        return
    with opened_bytes(file) as opened:
        if _code_of(file, opened.peek(HEAD)[:HEAD]) is not GAUSSIAN:
            return
        turned = forces = False
        for line in opened:
            if b"Input orientation:" in line or b"Z-Matrix orientation:" in line:
                return
            turned |= b"Standard orientation:" in line
            forces |= b"Forces (Hartrees/Bohr)" in line
    if turned and forces:
        raise ValueError(
            "must have positions in the input orientation, as its forces are, but has the "
            "standard orientation alone; run Gaussian with `nosymm`"
        )


def _steps_of_cut(file: Path) -> int | None:
    """How many energies an output holds that lacks its end; None of all other files."""
    if not file.is_file():
        return None
    with opened_bytes(file) as opened:
        head = opened.peek(HEAD)[:HEAD]
        code = _code_of(file, head)
        if code is None:
            return None
        steps = 0
        for line in opened:
            steps += code.energy in line
            if code.end in line:
                return None
    return steps


def _code_of(file: Path, head: bytes) -> Code | None:
    if "outcar" in file.name.lower():
        return VASP
    return next((code for code in CODES if code.name in head), None)


@contextmanager
def _whole_lines(file: Path) -> Iterator[Path]:
    """The file, or a copy without its last line if that has no end."""
    with file.open("rb") as opened:
        content_end = max(0, opened.seek(0, 2) - HEAD)
        opened.seek(content_end)
        last = opened.read()
    if last.endswith(b"\n"):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        with copy.open("r+b") as opened:
            opened.truncate(content_end + last.rfind(b"\n") + 1)
        yield copy


def _is_whole(*frames: Atoms) -> bool:
    """Whether the last frame has an energy, forces on every atom, and the labels of the others."""
    *others, found = (each.calc.results if each.calc else {} for each in frames)
    forces = found.get("forces")
    whole = "energy" in found and (forces is None or len(forces) == len(frames[-1]))
    return whole and all(set(found) >= set(other) for other in others)
