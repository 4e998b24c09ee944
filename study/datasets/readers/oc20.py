"""OC20's frames for structure to energy and forces (arXiv:2010.09990), in pairs of files.

`N.extxyz` has slabs with adsorbates, eV and eV/Å, with total energies; `N.txt` has a line
`system,frame,reference energy` for each frame. The energy is that of adsorption: the total less
the reference. Both may be compressed as .xz. The frames of one system are a group.

LMDB files made of such pairs are refused: they hold pickled objects, and reading those can run any
code.
"""

from __future__ import annotations

from pathlib import Path

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.parsing.folders import files_below
from study.datasets.parsing.text import number as real
from study.datasets.parsing.text import text_lines
from study.datasets.readers import ase_file
from study.datasets.reading import PLAIN, Reading


def holds_frames(path: Path) -> bool:
    """Whether there is such a pair in the folder or below it."""
    return path.is_dir() and any(_list_of(file) for file in _structures(path))


def read(path: Path, given: Reading = PLAIN) -> Frames:
    """The frames of all pairs of a folder.

    Raises:
        UserError: one line that names file and rule.
    """
    refuse_lmdb(path)
    read = []
    for file in sorted(_structures(path)):
        log = _list_of(file)
        if log is None:
            raise UserError(f"{file}: must have a .txt with reference energies beside it")
        lines = _lines(log)
        frames = list(ase_file.checked(file, given))
        if len(frames) != len(lines):
            raise UserError(f"{log}: must have a line for each of {len(frames)} frames")
        for number, (frame, line) in enumerate(zip(frames, lines, strict=True), start=1):
            try:
                system, _, reference = line.split(",")
                frame.calc.results["energy"] -= real(reference.strip())
            except (ValueError, KeyError, AttributeError):
                raise UserError(
                    f"{log}:{number}: must be `system,frame,reference energy` of a frame with an "
                    f"energy, but got {line!r}"
                ) from None
            frame.info["group"] = system
            read.append(frame)
    if not read:
        raise UserError(
            f"{path}: must hold frames in *.extxyz with *.txt, plain or as .xz, but holds none"
        )
    return ase_file.joined(read, path, given)


def refuse_lmdb(path: Path) -> None:
    """Refuse an LMDB file, and a folder with one in it or below it.

    Raises:
        UserError: naming the file, and what to use in its place.
    """
    for file in files_below(path, "*.lmdb") if path.is_dir() else [path]:
        if file.suffix == ".lmdb":
            raise UserError(
                f"{file}: LMDB files are not read, because they hold pickled objects; take OC20's "
                "own extxyz (python -m study.data fetch oc20_200k), or load the file with fairchem "
                "and write its structures with ase.io.write to an extxyz file"
            )


def _structures(path: Path) -> list[Path]:
    return [*files_below(path, "*.extxyz"), *files_below(path, "*.extxyz.xz")]


def _list_of(file: Path) -> Path | None:
    """The file of reference energies beside one of structures."""
    stem = file.name.partition(".extxyz")[0]
    beside = [file.with_name(f"{stem}.txt"), file.with_name(f"{stem}.txt.xz")]
    return next((log for log in beside if log.is_file()), None)


def _lines(log: Path) -> list[str]:
    with text_lines(log) as lines:
        return [line.strip() for line in lines if line.strip()]
