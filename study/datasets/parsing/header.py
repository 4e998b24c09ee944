"""`frames.json`: what a stored data set says of itself, and whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from study.core.errors import UserError, readable
from study.core.hashing import digest
from study.datasets.parsing.array_files import REMADE, require_whole

HEADER = "frames.json"

KINDS = {"content_hash": str, "frames": int, "files": dict, "origin": dict}
"""What every header holds."""


def read_header(folder: Path) -> dict[str, Any]:
    """`frames.json` of a data set: content hash, number of frames, units, files and origin.

    Raises:
        UserError: if there is none, or it is not what was written.
    """
    path = folder / HEADER
    try:
        header = json.loads(path.read_text())
    except (OSError, RecursionError, ValueError) as problem:
        raise UserError(f"{path}: no readable data set here ({problem})") from None
    if not isinstance(header, dict) or header.pop("digest", None) != digest(header):
        raise UserError(f"{path}: not what was written; {REMADE}")
    with readable(path, REMADE):
        _require_kinds(header)
    return header


def _require_kinds(header: dict[str, Any]) -> None:
    """Refuse a header whose values are of other kinds than those that are written.

    Raises:
        KeyError: if an entry is missing.
        TypeError: naming the first that is of another kind.
    """
    for name, kind in KINDS.items():
        if type(header[name]) is not kind:
            raise TypeError(f"`{name}` must be of type {kind.__name__}, not {header[name]!r:.40}")
    for name in header["files"]:
        if name != Path(name).name or not name.endswith(".npy") or "\0" in name:
            raise TypeError(f"`files` must name .npy files of the folder, not {name!r:.40}")
    for name in ("labels", "warnings", "absent"):
        told = header["origin"].get(name, [])
        if not (isinstance(told, list) and all(isinstance(each, str) for each in told)):
            raise TypeError(f"`origin.{name}` must be a list of texts, not {told!r:.40}")
    if not isinstance(header["origin"].get("sizes", {}), dict):
        raise TypeError("`origin.sizes` must be a mapping")


def verified_header(folder: Path, *, known: bool = False) -> dict[str, Any]:
    """`read_header`, after a check of every file of the data set; see `require_whole`.

    Raises:
        UserError: if one is missing or damaged.
    """
    header = read_header(folder)
    require_whole(folder, header, known=known)
    return header
