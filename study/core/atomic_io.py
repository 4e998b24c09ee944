"""Atomic, durable file writes, which survive a crash at any point.

A reader sees either the complete old file or the complete new one: content is written to a
temporary file in the same folder, flushed to disk, and renamed atomically.

Nothing is written through a symbolic link, neither that of a file nor that of a folder above it,
and no file is changed in place that has a second name, a hard link.
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
from typing import IO, Any, Literal

from filelock import BaseFileLock, FileLock, Timeout

from study.core.errors import UserError
from study.core.hashing import digest
from study.core.paths import require_no_links, require_own_file

logger = logging.getLogger(__name__)


class DamagedFileError(Exception):
    """A file is missing or its content differs from what was written."""


class Disk:
    """The system calls of durable writes; tests replace `disk` by one that fails."""

    def make_folder(self, path: Path) -> None:
        """Make a folder whose parent exists."""
        path.mkdir(exist_ok=True)

    def create(self, path: Path) -> int:
        """Open a new file of a unique name, locked as long as its writer lives."""
        while True:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return descriptor
            # Before it was locked, another process deleted it as an abandoned file.
            os.close(descriptor)

    def fill(self, path: Path, writer: Callable[[Path], object]) -> None:
        """Write the content of a file."""
        writer(path)

    def append(self, path: Path, length: int, content: bytes) -> None:
        """Truncate a file to `length` bytes and append content."""
        with open_unlinked(path, "ab") as opened:
            opened.truncate(length)
            opened.write(content)

    def sync(self, path: Path) -> None:
        """Flush the content of a file, or the entries of a folder, to disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or folder atomically."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Delete a file, or a folder with its content."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


disk = Disk()


def write_with(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer` write a temporary file, then rename it to `path` atomically."""
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


def open_unlinked(path: Path, mode: Literal["wb", "ab"]) -> IO[bytes]:
    """Open a file to write it in place, without following a symbolic link.

    Raises:
        UserError: if it, or a folder above it, is a link.
    """
    require_own_file(path)
    return open(path, mode, opener=_open_unlinked)


def _open_unlinked(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def make_folder(path: Path) -> None:
    """Make a folder and its parents if they do not exist.

    Raises:
        UserError: if one of them is a symbolic link.
    """
    require_no_links(path)
    if not path.is_dir():
        make_folder(path.parent)
        disk.make_folder(path)
        disk.sync(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder durably; an existing file or link of that name is replaced."""
    for place in (source, target):
        require_no_links(place.parent)
    disk.rename(source, target)
    disk.sync(target.parent)


def remove(path: Path) -> None:
    """Delete a file, a folder or a symbolic link, if it exists."""
    if os.path.lexists(path):
        require_no_links(path.parent)
        disk.remove(path)


def discard(path: Path, instead: str) -> None:
    """Delete a damaged file and log what happens instead of reading it."""
    logger.warning("%s: damaged; %s", path, instead)
    remove(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    write_with(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; keys sorted, so equal values give equal bytes."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_hashed(folder: Path, stem: str, suffix: str, content: bytes) -> Path:
    """Write `<stem>-<hash><suffix>` atomically; the hash in the name verifies the content."""
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
        # Other errors, such as too many open files, do not mean that this file is damaged.
        if problem.errno not in (errno.ENOENT, errno.EIO):
            raise
        raise DamagedFileError(f"{path}: cannot be read ({problem.strerror})") from None
    if path.stem.rpartition("-")[2] != _hash(content):
        raise DamagedFileError(f"{path}: content does not match the hash in its name")
    return content


def owned_by_current_user(path: Path) -> bool:
    """Whether a path and, if it is a link, its target belong to the user of this process."""
    return path.exists() and {path.stat().st_uid, path.lstat().st_uid} == {os.geteuid()}


def append_json(path: Path, value: dict[str, Any]) -> None:
    """Append a JSON line with its own hash, and flush it to disk.

    An incomplete last line, left by a crash during an earlier append, is removed first.
    """
    line = json.dumps(value | {"digest": digest(value)[:16]}, sort_keys=True).encode() + b"\n"
    make_folder(path.parent)
    require_own_file(path)
    length = length_of_complete_lines(path)
    disk.append(path, length, line)
    disk.sync(path)
    if not length:
        disk.sync(path.parent)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read all complete lines of a journal; damaged ones are skipped with a warning.

    An incomplete last line was never acknowledged, and is skipped silently.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    values = []
    for number, line in enumerate(lines, start=1):
        try:
            values.append(_verified(line))
        except ValueError:
            logger.warning("%s:%d: damaged line, skipped", path, number)
    return values


def _verified(line: bytes) -> dict[str, Any]:
    value: Any = json.loads(line)
    if not isinstance(value, dict) or value.pop("digest", None) != digest(value)[:16]:
        raise ValueError("not what was written")
    written: dict[str, Any] = value
    return written


def lock_of(path: Path, timeout: float = -1) -> BaseFileLock:
    """Make a lock of a file, which is created when somebody holds it; its folder is made.

    Args:
        path: of the file.
        timeout: seconds to wait for its holder; forever if negative.

    Raises:
        UserError: if it, or a folder above it, is a link.
    """
    make_folder(path.parent)
    require_own_file(path)
    return FileLock(path, timeout=timeout)


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file; raise `UserError(busy)` if another process holds it."""
    lock = lock_of(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(busy) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock file, tested by a momentary shared lock."""
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


def length_of_complete_lines(path: Path) -> int:
    """Bytes of a file up to the end of its last complete line; 0 if there is no file."""
    if not path.exists():
        return 0
    with path.open("rb") as opened:
        length = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, length - 1))
        if opened.read() == b"\n":
            return length
    return path.read_bytes().rfind(b"\n") + 1


def _remove_abandoned(folder: Path) -> None:
    """Delete temporary files whose locks nobody holds, because their writers were killed."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            disk.remove(path)
