"""The folder of a study: what it was started with, its journal, its lock."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core.atomic_io import owned_by_current_user, read_json_lines, remove, write_json
from study.core.errors import UserError
from study.core.hashing import code_version, digest, without_places
from study.core.records import without_password
from study.space.plugin_configs import keep
from study.space.search_space import Space

FREE = {"question", "resources", "profile"}
"""Keys of a space that may change between two runs of a study: they change no number."""


@dataclass(frozen=True)
class StudyFolder:
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

    def check(self, space: Space) -> None:
        """Refuse to continue a study whose space or code has changed.

        Trials already recorded would silently mean something else. Adding seeds, choices or
        proposals is no change to them, and a study in which no work has begun may change freely.

        Raises:
            UserError: naming each difference.
        """
        self._check_place()
        before = self._read()
        if before is None or not self._has_begun():
            return
        new_name = f"give the changed study its own name with --name {self.name}-2"
        if before["code_version"] != code_version():
            raise UserError(
                f"{self.path}: the code that decides the numbers has changed since this study "
                f"began; finish it with the old version, or {new_name}"
            )
        old, new = without_places(before["space"]), without_places(space.resolved())
        changes = differences(old, new, grid=space.settings.search is None)
        if changes:
            raise UserError(*(f"{space.path}: {change}; {new_name}" for change in changes))

    def _check_place(self) -> None:
        """Refuse a folder that someone else could have prepared.

        Raises:
            UserError: if it belongs to another user, or is a link to somewhere else.
        """
        if not self.path.resolve().is_relative_to((self.root / "studies").resolve()):
            raise UserError(
                f"{self.path}: is a link to {self.path.resolve()}; remove it, or choose a --name"
            )
        for place in (self.path, self.path / "study.json", self.journal):
            if place.exists() and not owned_by_current_user(place):
                raise UserError(
                    f"{place}: belongs to user {place.stat().st_uid}, not to you; choose another "
                    "--name or --out, or have it given to you with chown"
                )

    def check_data(self, data: dict[str, str]) -> None:
        """Refuse to continue a study whose data set has changed.

        Args:
            data: content hash of each data set, by the name of its folder.

        Raises:
            UserError: naming the data set.
        """
        before = self._read() if self._has_begun() else None
        for folder, content in (before or {}).get("data", {}).items():
            if data.get(folder, content) != content:
                raise UserError(
                    f"{self.root / 'data' / folder}: is not the data set that this study began "
                    f"with; bring that one back, or give the study a new name with --name "
                    f"{self.name}-2"
                )

    def write(
        self, space: Space, tracking_uri: str, data: dict[str, str], command: str = ""
    ) -> str:
        """Record what the study is, for later runs and for analysis.

        Args:
            space: what it studies.
            tracking_uri: of MLflow.
            data: content hash of each data set, by the name of its folder.
            command: that runs it.

        Returns:
            The study's own id, which no study of the same name in another folder has.
        """
        before = self._read() or {}
        resolved, code, known = space.resolved(), code_version(), before.get("data", {})
        if not self._has_begun() and (before.get("space"), before.get("code_version")) != (
            resolved,
            code,
        ):
            # What was planned for the space as it was before.
            remove(self.journal)
            known = {}
        content = {
            "id": before.get("id", uuid.uuid4().hex),
            "name": self.name,
            "data": known | data,
            "experiment": self.name,
            "profile": space.profile,
            "tracking_uri": without_password(tracking_uri),
            "space": resolved,
            "code_version": code,
            "command": command or before.get("command", ""),
        }
        keep(content["space"], self.root)
        if content != before:
            write_json(self.path / "study.json", content | {"digest": digest(content)})
        return str(content["id"])

    def frames_of(self, content: str) -> Path:
        """Folder of the data set with a content hash.

        Raises:
            UserError: if it is not there.
        """
        for name, known in (self._read() or {}).get("data", {}).items():
            if known == content:
                return self.root / "data" / str(name)
        raise UserError(f"{self.path}: knows no data set {content[:12]}; run the study again")

    def tracking_uri(self) -> str:
        """Of MLflow, without a password."""
        return str((self._read() or {}).get("tracking_uri", ""))

    def command(self) -> str:
        """That ran the study last; empty if nobody wrote it down."""
        return str((self._read() or {}).get("command", ""))

    def recorded_space(self) -> Space:
        """The space as the study was last run with.

        Raises:
            UserError: if there is no such study, or another version of the code wrote it.
        """
        recorded = self._read()
        if recorded is None:
            raise UserError(f"{self.path}: no study here; `python -m study.status` lists them")
        space = dict(recorded["space"])
        try:
            return Space.from_resolved(self.path / "study.json", space)
        except ValueError as problem:
            reason = str(problem).splitlines()[0]
            raise UserError(
                f"{self.path}: was made by another version of the code ({reason}); use that one"
            ) from None

    def _has_begun(self) -> bool:
        """Whether some work of the study has begun, which its results may rest on."""
        return any(event["event"] != "planned" for event in read_json_lines(self.journal))

    def _read(self) -> dict[str, Any] | None:
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
        return content


def _is_whole(content: dict[str, Any]) -> bool:
    """Whether the hash, which is taken out, is that of the rest."""
    return bool(content.pop("digest", None) == digest(content))


def differences(old: Any, new: Any, place: str = "", *, grid: bool = True) -> list[str]:
    """What changed between two resolved spaces, beyond additions; one phrase each.

    Args:
        old: the space, or a part of it.
        new: the same part of the other.
        place: of the part, as dotted keys.
        grid: whether a value may become a choice with others beside it; Optuna's earlier proposals
            would lack the new hole.
    """
    if old == new or place in FREE:
        return []
    if grid and isinstance(new, dict) and [*new] == ["choice"] and old in new["choice"]:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in [*old, *(key for key in new if key not in old)]
            for change in differences(
                old.get(key), new.get(key), f"{place}.{key}".lstrip("."), grid=grid
            )
        ]
    if place == "seeds" and new[: len(old)] == old:
        return []
    if place.endswith(".choice") and isinstance(new, list) and all(item in new for item in old):
        return []
    if place in ("search.trials", "search.repeat_best") and new > old:
        return []
    return [f"{place} was {json.dumps(old)} when this study began, and is {json.dumps(new)} now"]
