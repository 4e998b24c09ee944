"""A disk that fails at one step of a durable write."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from study.core import atomic_io

Kind = Literal["full", "error", "read-only", "killed", "torn", "power cut"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""full, read-only: from that step on nothing can be written; error: that step alone fails; killed:
the process ends before it; torn: in the middle of it; power cut: with it all is lost that was not
forced to disk."""

NUMBERS = {"full": errno.ENOSPC, "error": errno.EIO, "read-only": errno.EROFS}


class Killed(BaseException):
    """The process is gone: nothing may catch this, and the disk does nothing more."""


class FaultyDisk(atomic_io.Disk):
    """Counts the steps, and fails at one of them.

    Forcing to disk takes milliseconds and is left out; a power cut undoes what needed it.

    Args:
        at: the step that fails, from 0; none if it is below.
        kind: how it fails.
    """

    def __init__(self, at: int = -1, kind: Kind = "killed") -> None:
        self.at, self.kind = at, kind
        self.steps = 0
        self.failed = False
        self._dead = False
        self._unforced: dict[Path, bytes] = {}
        self._renamed: list[tuple[Path, Path, bytes | None]] = []

    def make_folder(self, path: Path) -> None:
        self._step(path)
        super().make_folder(path)

    def create(self, path: Path) -> int:
        self._step(path)
        self._unforced[path] = b""
        return super().create(path)

    def fill(self, path: Path, writer: Callable[[Path], object]) -> None:
        self._step(path, lambda: self._half(path, writer))
        self._unforced.setdefault(path, b"")
        super().fill(path, writer)

    def append(self, path: Path, length: int, content: bytes) -> None:
        old = path.read_bytes()[:length] if path.exists() else b""
        self._step(path, lambda: path.write_bytes(old + content[: len(content) // 2]))
        self._unforced.setdefault(path, old)
        super().append(path, length, content)

    def sync(self, path: Path) -> None:
        self._step(path, changes=False)
        self._unforced.pop(path, None)
        self._renamed = [names for names in self._renamed if names[1].parent != path]

    def rename(self, source: Path, target: Path) -> None:
        self._step(target)
        old = target.read_bytes() if target.is_file() else None
        self._renamed.append((source, target, old))
        if source in self._unforced:
            self._unforced[target] = self._unforced.pop(source)
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        if self._dead:
            raise Killed
        if self.kind in ("full", "read-only") and self.failed:
            super().remove(path)
            return
        self._step(path, changes=False)
        super().remove(path)

    def _half(self, path: Path, writer: Callable[[Path], object]) -> None:
        writer(path)
        os.truncate(path, path.stat().st_size // 2)

    def _step(
        self, path: Path, half: Callable[[], object] = lambda: None, *, changes: bool = True
    ) -> None:
        """Count a step; fail if it is its turn, or if the disk is no longer what it was."""
        if self._dead:
            raise Killed
        number, self.steps = self.steps, self.steps + 1
        lasting = self.failed and changes and self.kind in ("full", "read-only")
        if number != self.at and not lasting:
            return
        self.failed = True
        if self.kind in ("full", "error", "torn"):
            half()
        if self.kind in NUMBERS:
            raise OSError(NUMBERS[self.kind], os.strerror(NUMBERS[self.kind]), str(path))
        self._dead = True
        if self.kind == "power cut":
            self._cut()
        raise Killed

    def _cut(self) -> None:
        """Lose half of what was not forced to disk."""
        for path, forced in self._unforced.items():
            if path.is_file():
                content = path.read_bytes()
                path.write_bytes(content[: (len(forced) + len(content)) // 2])
        for source, target, old in reversed(self._renamed):
            target.replace(source)
            if old is not None:
                target.write_bytes(old)


@contextmanager
def inserted(disk: atomic_io.Disk) -> Iterator[None]:
    """Let all durable writes go to this disk."""
    before, atomic_io.disk = atomic_io.disk, disk
    try:
        yield
    finally:
        atomic_io.disk = before
