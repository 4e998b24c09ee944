"""Whether VASP's XML has what it says, which ASE takes for granted.

ASE leaves out what follows the place where a file was cut off, and takes rows that are missing for
zeros.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from study.datasets.parsing.guard import guarded, printable
from study.datasets.parsing.text import opened_bytes, plain_suffix

TABLES = ("positions", "forces")
"""With a row for each atom."""


def remarks(file: Path) -> list[str]:
    """What to say of a file that was cut off, of which the steps that are whole are read.

    Raises:
        UserError: if a step lacks rows.
    """
    if plain_suffix(file) != ".xml":
        return []
    with guarded(file), opened_bytes(file) as opened:
        atoms = step = 0
        try:
            for _, element in ElementTree.iterparse(opened):
                if element.tag == "atominfo":
                    atoms = len(element.findall("array[@name='atoms']/set/rc"))
                elif element.tag == "varray" and atoms:
                    _require_rows(element, atoms, step)
                elif element.tag == "calculation":
                    step += 1
                    element.clear()
        except ElementTree.ParseError:
            return [f"{printable(file.name)} was cut off: a step that is not whole is left out"]
    return []


def _require_rows(table: ElementTree.Element, atoms: int, step: int) -> None:
    name = table.get("name")
    text = " ".join(row.text or "" for row in table) if name in (*TABLES, "basis") else ""
    if "_" in text or not text.isascii():
        raise ValueError(f"step {step} (from 0) must have plain numbers as {name}")
    rows = 3 if name == "basis" else atoms if name in TABLES else len(table)
    if len(table) != rows:
        raise ValueError(f"step {step} (from 0) must have {rows} rows of {name}, not {len(table)}")
