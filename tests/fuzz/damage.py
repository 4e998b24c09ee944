"""Damage to the bytes of a file, by seed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

NUMBER = re.compile(rb"[-+.\deEdD]+")
JUNK = (
    b"nan",
    b"1_0",
    b"1e400",
    b"***",
    "\u0663".encode(),
    b"-",
    b"",
    b"0x10",
    b"\x1b[31m",
    b"inf",
)
TEXT = (".data", ".dump", ".sdf", ".csv", ".extxyz", ".xyz", ".xml", ".json")
UNCOUNTED = (".data", ".json", ".csv")
"""Formats that do not tell how many atoms, keys or rows there are."""
KINDS = ("cut", "bytes", "repeat", "line", "blank", "number", "swap")


@dataclass(frozen=True)
class Damaged:
    """A file's content after damage.

    Args:
        kind: of damage.
        content: what is left.
        within_a_value: whether numbers of the file may be others now, which no reader can know.
    """

    kind: str
    content: bytes
    within_a_value: bool


def damage(name: str, content: bytes, seed: int) -> Damaged:
    """Damage a file; text in seven ways, other files in three."""
    rng = np.random.default_rng(seed)
    text = name.endswith(TEXT)
    kind = KINDS[seed % (len(KINDS) if text else 3)]
    place = int(rng.integers(1, len(content)))
    match kind:
        case "cut":
            # A number that was cut is another number.
            within = text and re.search(rb"\d$", content[:place]) is not None
            return Damaged(kind, content[:place], within)
        case "bytes":
            return Damaged(kind, _other_bytes(content, rng), within_a_value=True)
        case "repeat":
            twice = content[:place] + content[place // 2 : place] + content[place:]
            return Damaged(kind, twice, within_a_value=text)
    return _damaged_lines(name, kind, content, rng)


def _other_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for spot in rng.integers(0, len(content), 4):
        changed[spot] = int(rng.integers(0, 256))
    return bytes(changed)


def _damaged_lines(name: str, kind: str, content: bytes, rng: np.random.Generator) -> Damaged:
    """Lines left out, blank or in another order, or a number that is none."""
    lines = content.splitlines(keepends=True)
    row = int(rng.integers(0, len(lines)))
    match kind:
        case "line":
            fewer = b"".join(lines[:row] + lines[row + 1 :])
            return Damaged(kind, fewer, within_a_value=name.endswith(UNCOUNTED))
        case "blank":
            more = b"".join([*lines[:row], b"\n", *lines[row:]])
            return Damaged(kind, more, within_a_value=False)
        case "number":
            places = [match.span() for match in NUMBER.finditer(content)]
            start, end = places[int(rng.integers(0, len(places)))]
            junk = JUNK[int(rng.integers(0, len(JUNK)))]
            return Damaged(kind, content[:start] + junk + content[end:], within_a_value=True)
    other = int(rng.integers(0, len(lines)))
    lines[row], lines[other] = lines[other], lines[row]
    return Damaged(kind, b"".join(lines), within_a_value=True)
