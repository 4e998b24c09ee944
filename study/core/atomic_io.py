"""Every write that must survive a crash goes through here.

A reader sees the whole old file or the whole new one: content goes to a temporary file in the
same folder, is forced to disk, and takes the final name by an atomic rename.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from study.core.errors import UserError
from study.core.hashing import digest

logger = logging.getLogger(__name__)


class DamagedFileError(Exception):
    """A file is missing or is not what was written."""


class Disk:
    """The steps that durable writes consist of; tests replace `disk` by one that fails."""

    def make_folder(self, path: Path) -> None:
        """Make a folder in one that exists."""
        path.mkdir(exist_ok=True)

    def create(self, path: Path) -> int:
        """Open a new file of a unique name, locked as long as its writer lives."""
        while True:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return descriptor
            # Before it was locked, another process took it for an abandoned one.
            os.close(descriptor)

    def fill(self, path: Path, writer: Callable[[Path], object]) -> None:
        """Give a file its content."""
        writer(path)

    def append(self, path: Path, length: int, content: bytes) -> None:
        """Cut a file off after `length` bytes and add content."""
        with path.open("ab") as opened:
            opened.truncate(length)
            opened.write(content)

    def sync(self, path: Path) -> None:
        """Force a file's content, or a folder's list of names, to disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name, atomically."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Delete a file or a folder with all that it holds."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


disk = Disk()


def write_with(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer` fill a temporary file, then give it the name `path` atomically."""
    make_folder(path.parent)
    _remove_abandoned(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = disk.create(temporary)
    try:
        disk.fill(temporary, writer)
        disk.sync(temporary)
        rename(temporary, path)
    except BaseException:
        disk.remove(temporary)
        raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and all above it, unless they are there."""
    if not path.is_dir():
        make_folder(path.parent)
        disk.make_folder(path)
        disk.sync(path.parent)


def rename(source: Path, target: Path) -> None:
    """Give a finished file or folder its final name; it replaces a file that has it."""
    disk.rename(source, target)
    disk.sync(target.parent)


def remove(path: Path) -> None:
    """Delete a file or folder that is no longer needed, if it is there."""
    if path.exists():
        disk.remove(path)


def discard(path: Path, instead: str) -> None:
    """Delete a damaged file and tell the user what happens instead of reading it."""
    logger.warning("%s: damaged; %s", path, instead)
    remove(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    write_with(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; keys sorted, so equal values give equal bytes."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_hashed(folder: Path, stem: str, suffix: str, content: bytes) -> Path:
    """Write `<stem>-<hash><suffix>` atomically; the name tells whether the content is whole."""
    path = folder / f"{stem}-{_hash(content)}{suffix}"
    write_bytes(path, content)
    return path


def read_hashed(path: Path) -> bytes:
    """Read a file written by `write_hashed`.

    Raises:
        DamagedFileError: if it is missing, or one bit differs from what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        # Others, such as too many open files, say nothing about this one.
        if problem.errno not in (errno.ENOENT, errno.EIO):
            raise
        raise DamagedFileError(f"{path}: cannot be read ({problem.strerror})") from None
    if path.stem.rpartition("-")[2] != _hash(content):
        raise DamagedFileError(f"{path}: content does not match the hash in its name")
    return content


def owned_by_current_user(path: Path) -> bool:
    """Whether a file or folder belongs to the user of this process, and so does a link to it."""
    return path.exists() and {path.stat().st_uid, path.lstat().st_uid} == {os.geteuid()}


def append_json(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line with its own hash, and force it to disk.

    A torn last line, left by a crash in the middle of an earlier append, is cut off first.
    """
    line = json.dumps(value | {"digest": digest(value)[:16]}, sort_keys=True).encode() + b"\n"
    make_folder(path.parent)
    length = _length_of_whole_lines(path)
    disk.append(path, length, line)
    disk.sync(path)
    if not length:
        disk.sync(path.parent)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a journal; of damaged ones the user is told.

    A torn last line was never acknowledged, and is left out.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    values = []
    for number, line in enumerate(lines, start=1):
        try:
            values.append(_verified(line))
        except ValueError:
            logger.warning("%s:%d: damaged line, left out", path, number)
    return values


def _verified(line: bytes) -> dict[str, Any]:
    value: Any = json.loads(line)
    if not isinstance(value, dict) or value.pop("digest", None) != digest(value)[:16]:
        raise ValueError("not what was written")
    written: dict[str, Any] = value
    return written


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file; raise `UserError(busy)` if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(busy) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock file; asks for a shared lock, for a moment."""
    try:
        with path.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _length_of_whole_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as opened:
        length = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, length - 1))
        if opened.read() == b"\n":
            return length
    return path.read_bytes().rfind(b"\n") + 1


def _remove_abandoned(folder: Path) -> None:
    """Delete temporary files of processes that were killed: nobody holds their locks."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            disk.remove(path)
