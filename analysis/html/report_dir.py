"""The folder of a report: what a new one writes replaces all that the last one left there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from study.core.atomic_io import remove, write_bytes, write_json

MANIFEST = "files.json"
"""Name → SHA-256 of each file of the report."""


class ReportFolder:
    """Writes the files of a report and records which ones it has written.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: dict[str, str] = {}

    def write(self, name: str, content: bytes) -> Path:
        """Write a file of the report."""
        write_bytes(self.path / name, content)
        self.written[name] = hashlib.sha256(content).hexdigest()
        return self.path / name

    def close(self) -> None:
        """Delete what an earlier report wrote here and this one did not.

        A file that no report wrote, or that somebody changed since, stays.
        """
        for name, expected in _earlier(self.path / MANIFEST).items():
            path = self.path / name
            ours = path.parent == self.path and name not in self.written and path.is_file()
            if ours and hashlib.sha256(path.read_bytes()).hexdigest() == expected:
                remove(path)
        write_json(self.path / MANIFEST, self.written)


def _earlier(manifest: Path) -> dict[str, str]:
    try:
        content = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {str(name): str(value) for name, value in content.items()}
