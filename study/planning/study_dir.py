"""The folder of a study: what it was started with, its journal, its lock."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core.atomic_io import read_json_lines, remove, write_json
from study.core.errors import MALFORMED, UserError, one_line, readable
from study.core.hashing import code_version, digest
from study.core.provenance import environment, installed
from study.core.records import without_password
from study.core.trust import tracking_uri_of
from study.space.plugin_configs import keep
from study.space.search_space import Space

KINDS: dict[str, type] = {
    "id": str,
    "name": str,
    "data": dict,
    "experiment": str,
    "profile": str,
    "tracking_uri": str,
    "space": dict,
    "code_version": str,
    "command": str,
    "audit": int,
    "environment": dict,
}
"""Entries of `study.json`; older versions lack some."""


def environment_of(space: Space) -> dict[str, str]:
    """What can change a study's numbers besides settings, data and code: machine and packages."""
    models = [trial.model for trial in space.samples]
    packages = {name for model in models for name in (model.package, *model.depends) if name}
    return environment(**space.settings.resources.model_dump()) | {
        name: installed(name) for name in sorted(packages)
    }


@dataclass(frozen=True)
class StudyDir:
    """Where a study keeps what only concerns itself.

    Args:
        root: folder of all work.
        name: of the study.
    """

    root: Path
    name: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.root / "studies" / self.name

    @property
    def journal(self) -> Path:
        """What was planned, reported and ended."""
        return self.path / "journal.jsonl"

    @property
    def lock(self) -> Path:
        """Held while the study runs."""
        return self.path / "lock"

    def write(
        self,
        space: Space,
        tracking_uri: str,
        data: dict[str, str],
        command: str = "",
        audit: int | None = None,
    ) -> str:
        """Record what the study is, for later runs and for analysis.

        Args:
            space: what it studies.
            tracking_uri: of MLflow.
            data: content hash of each data set, by the name of its folder.
            command: that runs it; as before when left out.
            audit: how many stopped trials it finishes; as before when left out.

        Returns:
            The study's own id, which no study of the same name in another folder has.
        """
        before = self.read() or {}
        resolved, code = space.resolved(), code_version()
        content = {
            "id": before.get("id", uuid.uuid4().hex),
            "name": self.name,
            "data": self._known_data(before, resolved, code) | data,
            "experiment": self.name,
            "profile": space.profile,
            "tracking_uri": without_password(tracking_uri),
            "space": resolved,
            "code_version": code,
            "command": command or before.get("command", ""),
            "audit": before.get("audit", 0) if audit is None else audit,
            "environment": environment_of(space),
        }
        keep(content["space"], self.root)
        if content != before:
            write_json(self.path / "study.json", content | {"digest": digest(content)})
        return str(content["id"])

    def _known_data(
        self, before: dict[str, Any], space: dict[str, Any], code: str
    ) -> dict[str, str]:
        """Data sets of earlier runs; forgets what was planned for another space, if none began."""
        changed = (before.get("space"), before.get("code_version")) != (space, code)
        if changed and not self.has_begun():
            remove(self.journal)
            return {}
        return dict(before.get("data", {}))

    def frames_of(self, content: str) -> Path:
        """Folder of the data set with a content hash.

        Raises:
            UserError: if it is not there.
        """
        for name, known in (self.read() or {}).get("data", {}).items():
            if known == content:
                return self.root / "data" / str(name)
        raise UserError(f"{self.path}: knows no data set {content[:12]}; run the study again")

    def tracking_uri(self, named: str | None = None) -> str:
        """Tracking URI of MLflow; see `tracking_uri_of`.

        Args:
            named: by the user, in place of the recorded one, which has no password.
        """
        return tracking_uri_of(self.path, str((self.read() or {}).get("tracking_uri", "")), named)

    def audit(self) -> int:
        """How many stopped trials the study finishes; 0 if an older version wrote the file."""
        return int((self.read() or {}).get("audit", 0))

    def command(self) -> str:
        """The command that ran the study last; empty if nobody wrote it down."""
        return str((self.read() or {}).get("command", ""))

    def recorded_space(self) -> Space:
        """The space as the study was last run with.

        Raises:
            UserError: if there is no such study, or another version of the code wrote it.
        """
        recorded = self.read()
        if recorded is None:
            raise UserError(f"{self.path}: no study here; `python -m study.status` lists them")
        space = dict(recorded["space"])
        try:
            return Space.from_resolved(self.path / "study.json", space)
        except MALFORMED as problem:
            reason = one_line(problem)[:200]
            raise UserError(
                f"{self.path}: was made by another version of the code ({reason}); use that one"
            ) from None

    def has_begun(self) -> bool:
        """Whether some work of the study has begun, which its results may rest on."""
        return any(event["event"] != "planned" for event in read_json_lines(self.journal))

    def read(self) -> dict[str, Any] | None:
        """Read `study.json`; none if there is none.

        Raises:
            UserError: if it is damaged.
        """
        path = self.path / "study.json"
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as problem:
            raise UserError(f"{path}: cannot be read ({problem}); choose another --out") from None
        # Older versions wrote nine entries and no hash.
        older = isinstance(content, dict) and len(content) == 9
        if not isinstance(content, dict) or not (older or _is_whole(content)):
            raise UserError(
                f"{path}: is damaged; bring back a good copy, or start anew with --name "
                f"{self.name}-2, which takes over all finished work"
            )
        with readable(path, f"start anew with --name {self.name}-2"):
            _require_kinds(content)
        return content


def _require_kinds(content: dict[str, Any]) -> None:
    """Refuse entries of another kind than `write` writes, whoever wrote them.

    Raises:
        ValueError, TypeError: naming the entry.
    """
    for name, kind in KINDS.items():
        value = content.get(name, kind())
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"`{name}` must be of the kind {kind.__name__}, but got {value!r}")
    data = content.get("data", {})
    if not all(isinstance(each, str) for each in (*data, *data.values())):
        raise ValueError(f"`data` must map names to hashes, but got {data!r}")
    if not {"space", "code_version"} <= content.keys():
        raise ValueError("`space` and `code_version` must be there")


def _is_whole(content: dict[str, Any]) -> bool:
    """Whether the hash, which is taken out, is that of the rest."""
    return bool(content.pop("digest", None) == digest(content))
