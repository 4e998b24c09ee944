"""Every write that must survive a crash goes through here.

A reader sees the whole old file or the whole new one: content goes to a temporary file in the
same folder, is forced to disk, and takes the final name by an atomic rename.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from study.errors import UserError


class DamagedFileError(Exception):
    """A file is missing or is not what was written."""


def write_with(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer` fill a temporary file, then give it the name `path` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        writer(temporary)
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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
        raise DamagedFileError(f"{path}: cannot be read ({problem.strerror})") from None
    if path.stem.rpartition("-")[2] != _hash(content):
        raise DamagedFileError(f"{path}: content does not match the hash in its name")
    return content


def append_json(path: Path, value: Any) -> None:
    """Append one JSON line and force it to disk.

    A torn last line, left by a crash in the middle of an earlier append, is cut off first.
    """
    line = json.dumps(value, sort_keys=True).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as journal:
        journal.truncate(_length_of_whole_lines(path))
        journal.write(line)
        journal.flush()
        os.fsync(journal.fileno())


def read_json_lines(path: Path) -> list[Any]:
    """All whole lines of a journal; a torn last line was never acknowledged and is left out."""
    if not path.exists():
        return []
    content = path.read_bytes()[: _length_of_whole_lines(path)]
    return [json.loads(line) for line in content.splitlines()]


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
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
