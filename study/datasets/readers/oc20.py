"""OC20's frames for structure to energy and forces (arXiv:2010.09990): pairs of files, or LMDB.

`N.extxyz` has slabs with adsorbates, eV and eV/Å, with total energies; `N.txt` has a line
`system,frame,reference energy` for each frame. The energy is that of adsorption: the total less
the reference. Both may be compressed as .xz. The frames of one system are a group. LMDB files, made
of such pairs, are read by `oc20_lmdb`.
"""

from __future__ import annotations

import lzma
from pathlib import Path

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.readers import ase_file, oc20_lmdb


def holds_frames(path: Path) -> bool:
    """Whether there is such a pair, or an LMDB file, in the folder or below it."""
    return path.is_dir() and (
        any(_list_of(file) for file in _structures(path)) or any(oc20_lmdb.files_of(path))
    )


def read(path: Path) -> Frames:
    """The frames of all pairs, or of all LMDB files, of a folder.

    Raises:
        UserError: one line that names file and rule.
    """
    pairs, databases = sorted(_structures(path)), oc20_lmdb.files_of(path)
    if pairs and databases:
        raise UserError(
            f"{path}: must hold either *.extxyz with *.txt or *.lmdb, but holds {pairs[0].name} "
            f"and {databases[0].name}, perhaps of the same frames; put them into two folders"
        )
    read = [frame for file in databases for frame in oc20_lmdb.structures(file)]
    for file in pairs:
        log = _list_of(file)
        if log is None:
            raise UserError(f"{file}: must have a .txt with reference energies beside it")
        lines = _lines(log)
        frames = list(ase_file.checked(file))
        if len(frames) != len(lines):
            raise UserError(f"{log}: must have a line for each of {len(frames)} frames")
        for number, (frame, line) in enumerate(zip(frames, lines, strict=True), start=1):
            try:
                system, _, reference = line.split(",")
                frame.calc.results["energy"] -= float(reference)
            except (ValueError, KeyError, AttributeError):
                raise UserError(
                    f"{log}:{number}: must be `system,frame,reference energy` of a frame with an "
                    f"energy, but got {line!r}"
                ) from None
            frame.info["group"] = system
            read.append(frame)
    if not read:
        raise UserError(
            f"{path}: must hold frames in *.extxyz with *.txt, plain or as .xz, or in *.lmdb, but "
            "holds none"
        )
    return ase_file.joined(read, path)


def _structures(path: Path) -> list[Path]:
    return [*path.rglob("*.extxyz"), *path.rglob("*.extxyz.xz")]


def _list_of(file: Path) -> Path | None:
    """The file of reference energies beside one of structures."""
    stem = file.name.partition(".extxyz")[0]
    beside = [file.with_name(f"{stem}.txt"), file.with_name(f"{stem}.txt.xz")]
    return next((log for log in beside if log.is_file()), None)


def _lines(log: Path) -> list[str]:
    try:
        with lzma.open(log, "rt") if log.suffix == ".xz" else log.open() as opened:
            return [line.strip() for line in opened if line.strip()]
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as problem:
        raise UserError(f"{log}: cannot be read ({problem})") from None
