"""The second line of a frame in an xyz file, in whatever way programs write it.

| program | comment |
|---|---|
| ASE, most others | `key=value`; `Lattice`, `pbc`, `Properties` in any case of letters |
| CP2K | `i = 5, time = 2.500, E = -17.2`, Hartree |
| ORCA | `Coordinates from ORCA-job water E -76.3`, Hartree |
| xtb | `energy: -5.07 gnorm: 0.0004 xtb: 6.4.1`, Hartree |
"""

from __future__ import annotations

import re
from typing import Any

from study.datasets.parsing.guard import printable
from study.datasets.parsing.text import number

HARTREES = (
    re.compile(r"\s*i\s*=\s*\d+\s*,.*\bE\s*=\s*(\S+)"),
    re.compile(r"\s*Coordinates from ORCA-job.*\bE\s+(\S+)"),
    re.compile(r"\s*(?:SCF )?energy:\s*(\S+)\s.*(?:gnorm|xtb)", re.IGNORECASE),
)
"""Comments with an energy in Hartree."""
KEY = re.compile(r"(?<![\w-])(lattice|pbc|properties)(?=\s*=)", re.IGNORECASE)
NAMES = {"lattice": "Lattice", "pbc": "pbc", "properties": "Properties"}
TRUTH = r"(?:T|F|true|false|0|1)"
FLAGS = re.compile(
    rf"(?<![\w-])pbc\s*=\s*({TRUTH})[\s,]+({TRUTH})[\s,]+({TRUTH})(?=\s|$)"
    r"|(?<![\w-])pbc\s*=\s*[\"']?([TF01])([TF01])([TF01])[\"']?(?=\s|$)",
    re.IGNORECASE,
)
"""Three flags without quotes or blanks, of which ASE takes the first for all."""
CELL = re.compile(
    r"(?<![\w-])(?:cell|box|unit_cell)\s*=\s*"
    r"(?:\"([^\"]*)\"|'([^']*)'|\{([^}]*)\}|(\[\[.*?\]\s*\]|\[[^\]]*\]))",
    re.IGNORECASE,
)
BARE = re.compile(r"(?<![\w-])(?:\w*energy|etot)\s*:\s*[-+]?\.?\d", re.IGNORECASE)
SHOWN = 60
"""Characters of a comment in a message."""
UNREAD = "unread comment"
"""Key of a frame's info: a comment that no rule here reads."""


def read_comment(comment: str) -> tuple[str, dict[str, Any]]:
    """What ASE is to read of a comment, and what is read of it here.

    Raises:
        ValueError: if it names a cell or an energy in a way that would be lost.
    """
    for form in HARTREES:
        if energy := form.match(comment):
            return "", {"E": number(energy[1].rstrip(",;")), "energy-unit": "Hartree"}
    if "=" not in comment:
        digits = re.search(r"\d\.\d", comment)
        return "", {UNREAD: printable(comment.strip()[:SHOWN])} if digits else {}
    if bare := BARE.search(comment):
        raise ValueError(f"must have its energy as `energy=NUMBER`, but got {bare[0]!r}")
    text = KEY.sub(lambda key: NAMES[key[1].lower()], comment.strip())
    text = FLAGS.sub(_quoted, text)
    return _with_lattice(text), {}


def _quoted(flags: re.Match[str]) -> str:
    words = [word for word in flags.groups() if word]
    return f'pbc="{" ".join("FT"[word.lower() in ("t", "true", "1")] for word in words)}"'


def _with_lattice(text: str) -> str:
    """A comment whose cell of nine numbers has the name that ASE knows."""
    cell = CELL.search(text)
    if cell is None or "Lattice" in text:
        return text
    words = re.split(r"[\s,\[\]]+", "".join(filter(None, cell.groups())).strip(" ,[]"))
    if len(words) in (3, 6):
        raise ValueError(
            f'must have its cell as `Lattice="ax ay az bx by bz cx cy cz"`, but got {cell[0]!r}'
        )
    return CELL.sub(f'Lattice="{" ".join(words)}"', text, count=1) if len(words) == 9 else text
