"""Finished work as its folder tells of it; nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.durable import DamagedFileError, read_hashed
from study.errors import UserError
from study.identity import digest

RESULT = "result.json"
"""In the folder of work, which it makes finished."""


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Args:
        folder: of the work that left them.
        weights: their file.
        sha256: of that file's content.
        settings: that the work depended on.
    """

    folder: Path
    weights: Path
    sha256: str
    settings: dict[str, Any]

    @property
    def labelled(self) -> bool:
        """Whether labels of its data set are in the weights."""
        stage = self.settings.get("finetune") or self.settings["pretrain"]
        return stage.get("task", {}).get("name") in ("energy_forces", "scalar")


def load_result(folder: Path) -> dict[str, Any] | None:
    """What `result.json` says; none if it or the weights that it names are damaged or not there.

    Raises:
        OSError: if the file is there and cannot be read.
    """
    try:
        value = json.loads((folder / RESULT).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(value, dict) or value.pop("digest", None) != digest(value):
        return None
    try:
        if value["weights"]:
            read_hashed(folder / value["weights"])
    except DamagedFileError:
        return None
    return value


def find_start(place: str) -> Start:
    """Weights that finished work has left.

    Args:
        place: its folder.

    Raises:
        UserError: if there are none, or it does not tell its settings.
    """
    try:
        folder = Path(place).expanduser().resolve()
        known = folder.is_dir()
        found = load_result(folder)
    except (OSError, ValueError, RuntimeError) as problem:
        raise UserError(f"{place!r}: cannot be read ({problem}); name another folder") from None
    if not known:
        raise UserError(f"{place}: no such folder; name that of finished work, OUT/work/pretrain-…")
    if found is None:
        raise UserError(
            f"{place}: must have a whole {RESULT} with whole weights; name a folder of finished "
            "work, OUT/work/pretrain-… or OUT/work/trial-…, or run that study again"
        )
    if not found["weights"]:
        raise UserError(f"{place}: has no weights, because its training diverged; name another")
    if not found.get("settings"):
        raise UserError(
            f"{place}: does not tell its settings, as an older version of the code left it; do "
            "that work again with this one"
        )
    weights = folder / found["weights"]
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Start(folder, weights, sha256, found["settings"])
