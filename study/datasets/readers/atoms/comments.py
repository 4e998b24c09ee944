"""The second line of a frame in an xyz file, in whatever way programs write it.

| program | comment |
|---|---|
| ASE, most others | `key=value`; `Lattice`, `pbc`, `Properties` in any case of letters |
| CP2K | `i = 5, time = 2.500, E = -17.2`, Hartree; keys may follow |
| CP2K, extended | `Lattice="…" Properties=… pbc="…" Step=5 Time=2.500 Energy=-17.2`, Hartree |
| ORCA | `Coordinates from ORCA-job water E -76.3`, Hartree |
| xtb | `energy: -5.07 gnorm: 0.0004 xtb: 6.4.1`, Hartree |

What a comment says of the cell, of periodicity or of labels is read or refused, and never lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from study.core.quantities.units import length_unit
from study.datasets.parsing.declared_units import NO_UNITS, suits
from study.datasets.parsing.guard import printable
from study.datasets.parsing.label_names import OTHER_ENERGIES, is_label
from study.datasets.parsing.text import number

HARTREES = (
    re.compile(r"\s*i\s*=\s*\d+\s*,.*\bE\s*=\s*(\S+)"),
    re.compile(r"\s*Coordinates from ORCA-job.*\bE\s+(\S+)"),
    re.compile(r"\s*(?:SCF )?energy:\s*(\S+)\s.*(?:gnorm|xtb)", re.IGNORECASE),
)
"""Comments with an energy in Hartree."""
CP2K = re.compile(
    r'\s*Lattice="[^"]*" Properties=species:S:1:pos:R:3 (?:pbc="[^"]*" )?'
    r"Step=\d+ Time=\S+ Energy=\S+\s*"
)
KEY = re.compile(r"(?<![\w-])(lattice|pbc|properties)(?=\s*=)", re.IGNORECASE)
NAMES = {"lattice": "Lattice", "pbc": "pbc", "properties": "Properties"}
TRUTH = r"(?:T|F|true|false|0|1)"
FLAGS = re.compile(
    rf"(?<![\w-])pbc\s*=\s*({TRUTH}[\s,]+{TRUTH}[\s,]+{TRUTH}(?=\s|$)"
    r"|\"[^\"]*\"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\S+)",
    re.IGNORECASE,
)
LATTICE = re.compile(r"(?<![\w-])Lattice\s*=\s*(\"[^\"]*\"|'[^']*'|\{[^}]*\}|\[.*?\](?=\s|$)|\S+)")
CELL = re.compile(
    r"(?<![\w-])(?:cell|box|unit_cell)\s*=\s*"
    r"(?:\"([^\"]*)\"|'([^']*)'|\{([^}]*)\}|(\[\[.*?\]\s*\]|\[[^\]]*\]))",
    re.IGNORECASE,
)
NUMBER = r"[-+]?\.?\d[\w.+-]*"
CELL_NAME = (
    r"(?:unit_?)?(?:cell|box|lattice)(?:_?(?:par\w*|size|lengths?|vectors?|constants?|abc"
    r"|matrix|dim\w*|edges?|l|angles?))?(?:\(\w*\))?"
)
OTHER_CELL = re.compile(
    rf"(?<![\w-])(?P<name>{CELL_NAME})(?P<equals>\s*=|\s*:?)\s*[\"'{{\[(]*\s*"
    rf"(?P<numbers>{NUMBER}(?:[\s,]+{NUMBER})*)(?:[\"'}}\])]*\s+(?P<next>[^\s=\"']+)(?!\S|\s*=))?",
    re.IGNORECASE,
)
"""A cell under any name, with numbers."""
VALUE = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
TEXT = re.compile(
    rf"(?<![\w-])(?!(?:{CELL_NAME}|pbc)\s*=)(?P<key>[^\s=\"']+\s*=\s*)(?P<text>\"[^\"]*\"|'[^']*')",
    re.IGNORECASE,
)
"""A quoted value of another key than a cell's, whose words are no keys."""
OWN_UNIT = re.compile(rf"(?<!\S)([^\s=\"']+)(\s*=\s*{NUMBER}\s+)([^\s=\"',;]+)(?=[\s,;]|$)(?!\s*=)")
"""A word behind a number that has a key."""
BARE = re.compile(r"(?<![\w-])(?:\w*energy|etot)\s*:\s*[-+]?\.?\d", re.IGNORECASE)
PAIR = re.compile(r"([^\s=\"']+)\s*=\s*(\"[^\"]*\"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\S+)|(\S+)")
TENSOR = re.compile(r"(?<![\w-])(stress|virial)(?=\s*=)")
"""Keys of which ASE takes nine numbers alone, of a stress without the three below the diagonal."""
TENSOR_OF = "{} as it stands there"
SHOWN = 60
"""Characters of a comment in a message."""
UNREAD = "unread comment"
"""Key of a frame's info: a comment that no rule here reads."""
PASSED = "passed over"
"""Key of a frame's info: what looks like a cell or a unit and counts as none, in words."""


def read_comment(comment: str) -> tuple[str, dict[str, Any]]:
    """What ASE is to read of a comment, and what is read of it here.

    Raises:
        ValueError: if it names a cell or an energy in a way that would be lost.
    """
    for form in HARTREES:
        if energy := form.match(comment):
            rest = comment[energy.end() :]
            text, extra = read_comment(rest) if "=" in rest else ("", {})
            return text, extra | {"E": number(energy[1].rstrip(",;")), "energy-unit": "Hartree"}
    if "=" not in comment:
        _indexes(comment)
        digits = re.search(r"\d\.\d", comment)
        return "", {UNREAD: printable(comment.strip()[:SHOWN])} if digits else {}
    if bare := BARE.search(_without_texts(comment)):
        raise ValueError(f"must have its energy as `energy=NUMBER`, but got {bare[0]!r}")
    _require_plain_keys(comment)
    text = _replaced(KEY, lambda key: NAMES[key[1].lower()], comment.strip())
    text, passed = _with_lattice(_replaced(FLAGS, _quoted, text))
    text, lengths = _without_own_units(text)
    extra = {"energy-unit": "Hartree"} if CP2K.fullmatch(comment) else {}
    if passed or lengths:
        extra[PASSED] = "; ".join(dict.fromkeys([*passed, *lengths]))
    return _replaced(TENSOR, lambda key: f'"{TENSOR_OF.format(key[1])}"', text), extra


def restored(info: dict[str, Any]) -> None:
    """Give the keys back their names that `read_comment` has hidden from ASE."""
    for name in ("stress", "virial"):
        if (hidden := TENSOR_OF.format(name)) in info:
            info[name] = info.pop(hidden)


def _require_plain_keys(comment: str) -> None:
    """Refuse a label that stands there twice, or whose name has another word before it.

    Raises:
        ValueError: naming it.
    """
    seen: dict[str, str] = {}
    before = ""
    for key, value, word in PAIR.findall(comment):
        if is_label(key, "energy") and before.lower() in OTHER_ENERGIES:
            raise ValueError(
                f"must have its total energy alone as `{key}`, but got `{before} {key}`; write "
                f"`{before}_{key}`"
            )
        if is_label(key, "energy") and not _equal(seen.setdefault(key, value), value):
            raise ValueError(f"must have `{key}` once, but got {seen[key]} and {value}")
        before = word


def _quoted(flags: re.Match[str]) -> str:
    words = [word for word in re.split(r"[\s,]+", flags[1].strip("\"'{}[] ")) if word]
    if len(words) == 1 and re.fullmatch("[TF01]{3}", words[0], re.IGNORECASE):
        words = list(words[0])
    truths = [re.fullmatch(TRUTH, word, re.IGNORECASE) for word in words]
    if len(words) not in (1, 3) or not all(truths):
        raise ValueError(
            f'must have `pbc` as three of T and F, such as `pbc="T T F"`, but got {flags[0]!r}'
        )
    plain = ["FT"[word.lower() in ("t", "true", "1")] for word in words]
    return f'pbc="{" ".join(plain * (3 // len(plain)))}"'


def _equal(one: str, other: str) -> bool:
    """Whether two values are the same text, or the same number."""
    numbers = [VALUE.fullmatch(each.strip("\"'")) for each in (one, other)]
    return one == other or (all(numbers) and len({float(each[0]) for each in numbers if each}) == 1)


def _without_texts(comment: str) -> str:
    """A comment of the same length whose quoted values of other keys than a cell's are blank."""
    return TEXT.sub(lambda pair: pair["key"] + f'"{" " * (len(pair["text"]) - 2)}"', comment)


def _replaced(what: re.Pattern[str], new: Callable[[re.Match[str]], str], comment: str) -> str:
    """A comment with other words in the place of some, but not in texts."""
    if not what.search(comment):
        return comment
    for found in reversed([*what.finditer(_without_texts(comment))]):
        comment = comment[: found.start()] + new(found) + comment[found.end() :]
    return comment


def _with_lattice(text: str) -> tuple[str, list[str]]:
    """A comment whose cell of nine numbers has the name that ASE knows, and what is passed over."""
    seen = _without_texts(text)
    form = LATTICE if LATTICE.search(seen) else CELL
    cell = form.search(seen)
    # `cell="None"` is what Python writes of a molecule.
    if cell and (form is LATTICE or re.search(r"\d", cell[0])):
        inside = "".join(filter(None, cell.groups())).strip(" ,[]{}\"'")
        words = re.split(r"[\s,\[\]]+", inside)
        if len(words) == 9:
            lattice = f'Lattice="{" ".join(words)}"'
            return text[: cell.start()] + lattice + text[cell.end() :], []
        if form is LATTICE:
            raise _no_cell(cell[0])
    return text, _indexes(seen)


def _indexes(text: str) -> list[str]:
    """What to say of single whole numbers under the name of a cell.

    Raises:
        ValueError: if a cell stands there in a form that is not read: three numbers or more, or a
            length.
    """
    said = []
    for cell in OTHER_CELL.finditer(text):
        words = re.split(r"[\s,]+", cell["numbers"])
        equals = "=" in cell["equals"]
        behind = [cell["next"]] if cell["next"] and suits(length_unit, cell["next"]) else []
        if len(words) > 2 or (equals and (behind or any(map(_is_length, words)))):
            raise _no_cell(cell[0])
        if equals:
            said.append(
                f"`{printable(cell['name'])}` with a whole number is taken for an index, not for "
                'a cell, which is `Lattice="ax ay az bx by bz cx cy cz"`'
            )
    return said


def _is_length(word: str) -> bool:
    """Whether it is a number with a point, or has a unit of length at its end."""
    number = VALUE.match(word)
    rest = word[number.end() :] if number else word
    return bool(number) and (suits(length_unit, rest) if rest else not word.lstrip("+-").isdigit())


def _without_own_units(text: str) -> tuple[str, list[str]]:
    """A comment without units of length behind numbers such as `size=2 nm`, and what to say."""
    said = []

    def without(pair: re.Match[str]) -> str:
        key, _, unit = pair.groups()
        odd = suits(length_unit, unit) and length_unit(unit) != 1 and unit.lower() not in NO_UNITS
        if not odd or is_label(key, "energy"):
            return pair[0]
        what = f"`{printable(unit)}` behind `{printable(key)}`"
        said.append(f"{what} is taken for its unit, not for that of positions")
        return key + pair[2]

    return _replaced(OWN_UNIT, without, text), said


def _no_cell(got: str) -> ValueError:
    return ValueError(
        'must have its cell as `Lattice="ax ay az bx by bz cx cy cz"`, but got '
        f"{printable(got[:SHOWN])!r}"
    )
