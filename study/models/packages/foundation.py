"""Foundation models as files: safetensors whose header tells the settings of their network.

Neither torch nor the package is needed to read a header, so that a bad file is answered at once.
`python -m study.foundation` makes such a file of what a package saves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core.errors import UserError
from study.core.hashing import file_hash

MOST_HEADER_BYTES = 100_000_000
"""Of a safetensors file, which the library refuses, too."""

ENTRY = "foundation"
"""Of the metadata, which tells the model."""

CONVERT = "make one with `python -m study.foundation FILE.model`"


@dataclass(frozen=True)
class FoundationFile:
    """A foundation model in a file.

    Args:
        path: of the file.
        sha256: of its content.
        package: that made it.
        model: settings of its network, as JSON.
        trained_on: what it says of its training data; empty if it does not.
    """

    path: Path
    sha256: str
    package: str
    model: dict[str, Any]
    trained_on: str


def read_foundation(path: Path) -> FoundationFile:
    """Read what a file tells of its model.

    Raises:
        UserError: if it cannot be read, or is no such file.
    """
    try:
        told = json.loads(_header(path)["__metadata__"][ENTRY])
        package, settings, trained_on = (told[name] for name in ("package", "model", "trained_on"))
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{path}: must be a safetensors file that tells its model; {CONVERT}"
        ) from None
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise UserError(f"{path}: does not name its model; {CONVERT}")
    return FoundationFile(path, file_hash(path), str(package), settings, str(trained_on))


def described(package: str, model: dict[str, Any], trained_on: str) -> dict[str, str]:
    """The metadata of such a file: one entry, because the library writes several in any order."""
    told = {"package": package, "model": model, "trained_on": trained_on}
    return {ENTRY: json.dumps(told, sort_keys=True)}


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER_BYTES:
            raise ValueError("no header")
        header: dict[str, Any] = json.loads(file.read(length))
    return header
