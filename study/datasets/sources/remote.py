"""Files that lie elsewhere, such as in a bucket, copied here by any filesystem of fsspec.

A copy is kept in `downloads` of the results, with what the server said of the file. Another one is
made beside it as soon as the server says something else, so that a changed file is known as a local
one is, by its content, and what studies began with stays. An address is asked once a process.
"""

from __future__ import annotations

import errno
import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from study.core.atomic_io import remove, write_json, write_with
from study.core.errors import UserError, one_line
from study.core.hashing import digest, file_hash
from study.core.paths import real_path
from study.core.records import without_password

DOWNLOADS = "downloads"
"""Folder of copies in that of all work."""

NOTE = "source.json"
"""File beside a copy: what the server said of it, and its hash."""

STATES = ("etag", "md5", "crc", "digest", "hash", "modif", "mtime", "created", "updated", "version")
"""Parts of the names under which filesystems tell whether a file is still the same."""

DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

OPTIONS = {"s3": {"default_block_size": 2**23}}
"""s3fs fetches ten blocks at once, in memory, which by default have 50 MB each."""

S3_KEYS = " (`aws configure`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
"""Where those of S3 come from."""

Progress = Callable[[int, int], object]


def local(
    place: Path | str,
    store: Path | None = None,
    *,
    keep: bool = True,
    progress: Progress = lambda _done, _total: None,
) -> Path:
    """The path of a file, which is copied here first if it is an address.

    Args:
        place: path or address.
        store: folder of copies; until this process ends, among temporary files when left out.
        keep: whether a copy that is not in the store yet is put there, or among temporary files.
        progress: told how many bytes of how many are there.

    Raises:
        UserError: one line that says why it cannot be had.
    """
    if isinstance(place, Path):
        return place
    if "://" not in place:
        return Path(place).expanduser()
    if place not in _copies:
        _copies[place] = _copy(place, store, keep, progress)
    return _copies[place]


_copies: dict[str, Path] = {}


def _copy(address: str, store: Path | None, keep: bool, progress: Progress) -> Path:  # noqa: FBT001
    if without_password(address) != address:
        raise UserError(
            f"{without_password(address)}: must be written without user, password or key, because "
            "results record it; put them into the environment, or copy the file here"
        )
    earlier = _copies_in(store / digest(address)[:12]) if store else []
    with _explained(address, f"; or go on with the copy, {earlier[0]}" if earlier else ""):
        filesystem, path = _filesystem(address)
        info = filesystem.info(path)
    if info["type"] != "file":
        raise UserError(f"{address}: must be one file, but is a folder; copy it here and name that")
    state = _state(info)
    for copy in earlier:
        if state and _is_whole(copy, state=state):
            return copy
    file = (store if store and keep else _temporary()) / _place_of(address, state)

    def receive(part: Path) -> None:
        with _explained(address):
            _receive(filesystem, path, part, info["size"], progress)

    write_with(file, receive)
    content = file_hash(file)
    for copy in earlier:
        if not state and _is_whole(copy, sha256=content):
            remove(file.parent)
            return copy
    write_json(file.with_name(NOTE), {"address": address, "state": state, "sha256": content})
    return file


def _doubtful(address: str) -> str:
    """What to check where a file is not found."""
    here = address.startswith(("file:", "local:", "memory:"))
    return "the address" if here else "the address, the network and your credentials"


def _place_of(address: str, state: str) -> Path:
    """Where a copy is put: never in the place of another content, which a study may be reading."""
    name = address.rstrip("/").rpartition("/")[2]
    version = state[:12] or secrets.token_hex(6)
    return Path(digest(address)[:12], version, name if name.strip(".") else "data")


def _copies_in(folder: Path) -> list[Path]:
    """All copies with a note in a folder, the newest first."""
    notes = sorted(folder.rglob(NOTE), key=lambda note: note.stat().st_mtime_ns, reverse=True)
    beside = (each for note in notes for each in sorted(note.parent.iterdir()))
    return [each for each in beside if each.is_file() and not (each.name == NOTE or _is_part(each))]


def _is_part(file: Path) -> bool:
    """Whether a file is still being written, by `write_with`."""
    return file.match(".*.tmp")


def _is_whole(copy: Path, **known: str) -> bool:
    """Whether a copy has the content of its note, and the note says what is known of the file."""
    with suppress(AttributeError, OSError, ValueError, KeyError, TypeError):
        note = json.loads(copy.with_name(NOTE).read_bytes())
        return bool(known.items() <= note.items() and note["sha256"] == file_hash(copy))
    return False


def copy_of(content: str, store: Path) -> Path | None:
    """A whole copy with a content, by its SHA-256, if one is kept."""
    return next((copy for copy in _copies_in(store) if _is_whole(copy, sha256=content)), None)


def _state(info: dict[str, Any]) -> str:
    """What changes with the file; empty if its server tells nothing of the kind."""
    told = {key: str(value) for key, value in info.items() if _tells_state(key)}
    return digest(told | {"size": info["size"]}) if told else ""


def _tells_state(key: str) -> bool:
    return any(word in key.lower() for word in STATES)


def _filesystem(address: str) -> tuple[Any, str]:
    """The filesystem of an address, and the path there.

    Raises:
        UserError: if fsspec knows none, or its package is missing.
    """
    from fsspec.core import url_to_fs  # Takes long to import, and most data are here.

    try:
        filesystem, path = url_to_fs(address, **OPTIONS.get(address.partition("://")[0], {}))
    except ImportError as problem:
        needed = (getattr(problem.__cause__, "name", None) or "fsspec").partition(".")[0]
        raise UserError(
            f"{address}: needs a package that is not installed: `pip install {needed}`, or copy "
            "the file here"
        ) from None
    return filesystem, str(path)


def _receive(filesystem: Any, path: str, part: Path, size: int | None, progress: Progress) -> None:
    from fsspec.callbacks import Callback

    told = Callback(hooks={"told": lambda total, done, **_: progress(done, total or done)})
    filesystem.get_file(path, str(part), callback=told)
    if size is not None and part.stat().st_size != size:
        raise ConnectionError(f"got {part.stat().st_size} of {size} bytes")


@contextmanager
def _explained(address: str, way_out: str = "") -> Iterator[None]:
    """Say in a line why a file cannot be had, whatever its filesystem raises; a full disk is ours.

    Args:
        address: of the file.
        way_out: another one than to mend the address or the access.

    Raises:
        UserError: if it cannot be.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno in DISK_FAULTS:
            raise
        cause = problem.__cause__ or problem
        absent = isinstance(cause, FileNotFoundError)
        what = "no such file" if absent else f"cannot be read ({one_line(cause)[:200]})"
        keys = S3_KEYS if address.startswith("s3") else ""
        raise UserError(f"{address}: {what}; check {_doubtful(address)}{keys}{way_out}") from None


@cache
def _temporary() -> Path:
    """A folder that is removed when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="study-", ignore_cleanup_errors=True)
    _folders.append(folder)
    return real_path(Path(folder.name))


_folders: list[tempfile.TemporaryDirectory[str]] = []
