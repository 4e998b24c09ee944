"""Large files of extxyz in pieces, each of which is read by itself."""

from __future__ import annotations

import re
from collections import deque
from io import BytesIO, TextIOWrapper
from itertools import islice, pairwise
from pathlib import Path

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.parsing.guard import guarded
from study.datasets.parsing.text import LONGEST_LINE, OPENERS, bounded_lines, is_tar
from study.datasets.readers.ase_file import frames_of
from study.datasets.readers.atoms import extxyz
from study.datasets.readers.atoms.across_frames import require_alike
from study.datasets.readers.atoms.plain_xyz import PlainReader
from study.datasets.reading import Divisible, Reading

COUNT = re.compile(rb"\s*\d{1,12}\s*")
PIECE_BYTES = 16_000_000
"""Of a piece; ASE's frames take ten times as much while they are read."""
NOT_FOUND = ("no energy; ", "no forces; ")
"""How remarks begin on labels that no frame has."""


def divide(path: Path) -> list[tuple[int, int]]:
    """First byte of each piece of a file, and of what comes after; none but of plain extxyz."""
    plain = path.is_file() and not is_tar(path) and path.suffix not in OPENERS
    if not plain or not extxyz.is_xyz(path) or extxyz.NO_POSITIONS.search(path.name):
        return []
    bounds = [0]
    with path.open("rb") as file:
        while head := file.readline(LONGEST_LINE):
            count = int(head) if COUNT.fullmatch(head) else 0
            if not count and head.strip():
                return []
            deque(islice(file, count + 1 if count else 0), maxlen=0)
            if file.tell() - bounds[-1] >= PIECE_BYTES:
                bounds.append(file.tell())
    ends = sorted({*bounds, path.stat().st_size})
    return list(pairwise(ends))


def read_piece(path: Path, given: Reading, piece: tuple[int, int]) -> tuple[Frames, list[str]]:
    """The frames of a piece, and the names of their groups.

    Raises:
        UserError: if they cannot be read, or lack what other frames may have.
    """
    with path.open("rb") as file:
        file.seek(piece[0])
        content = BytesIO(file.read(piece[1] - piece[0]))
    reader, made = PlainReader(given), []
    with TextIOWrapper(content, encoding="utf-8", errors="surrogateescape") as text:
        lines = bounded_lines(text, path)
        head = next(lines, None)
        while head is not None:
            if head.strip():
                comment, rows, head = extxyz.frame_lines(head, lines)
                made.append(reader.frame(comment, rows))
            else:
                head = next(lines, None)
    with guarded(path):
        require_alike(made)
    frames, names = frames_of(made)
    asked = given.labels.model_dump(exclude_none=True)
    for label in ("stress" if each == "virial" else each for each in asked):
        if not any(each.names[label] for each in made):
            raise UserError(f"{path}: has frames without {label}")
    if any(remark.startswith(NOT_FOUND) for remark in frames.origin["labels"]):
        raise UserError(f"{path}: has frames without labels")
    return frames, names


PIECES = {"ase_file": Divisible(divide, read_piece)}
