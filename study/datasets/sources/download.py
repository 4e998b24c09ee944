"""Download a file once: go on where it broke off, and keep nothing but what was published."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study.core import atomic_io
from study.core.atomic_io import make_folder, open_unlinked, remove, rename
from study.core.errors import UserError

CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """A published file.

    Args:
        address: where it is.
        name: of the file here.
        size: bytes; none where nobody says so.
        md5: its published checksum; empty where nobody says so.
    """

    address: str
    name: str
    size: int | None = None
    md5: str = ""


def fetch(source: Source, folder: Path, progress: Callable[[int, int], None]) -> Path:
    """The file in a folder, downloaded unless it is there, and compared with what is known of it.

    Args:
        source: which file.
        folder: for it.
        progress: told how many bytes of how many are there.

    Raises:
        UserError: if it cannot be had, saying what to do by hand, or is another than published.
    """
    file = folder / source.name
    if not file.exists():
        received = receive(source.address, file, source.size, progress)
        try:
            _verify(received, source)
        except UserError:
            remove(received)
            raise
        rename(received, file)
    _verify(file, source)
    return file


def receive(
    address: str, file: Path, size: int | None, progress: Callable[[int, int], None]
) -> Path:
    """Download what shall become a file; what broke off goes on where it stopped.

    Returns:
        The whole download, beside the file; its caller gives it the name.
    """
    part = file.with_name(f"{file.name}.part")
    make_folder(part.parent)
    try:
        _receive(address, part, progress)
    except (OSError, http.client.HTTPException) as problem:
        if isinstance(problem, urllib.error.HTTPError):
            remove(part)  # a server that refuses will not go on with it either
        reason = getattr(problem, "reason", None) or str(problem) or type(problem).__name__
        known = f" ({size / 1e6:.1f} MB)" if size else ""
        raise UserError(
            f"{address}: cannot be downloaded ({reason}); run again to go on, or download it by "
            f"hand{known}, put it at {file}, and run this command again"
        ) from None
    atomic_io.disk.sync(part)
    return part


def _receive(address: str, part: Path, progress: Callable[[int, int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "User-Agent": "pretraining-study"}
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        have = have if resumed else 0
        total = have + int(answer.headers["Content-Length"] or 0)
        with open_unlinked(part, "ab" if resumed else "wb") as written:
            while block := answer.read(CHUNK):
                have += written.write(block)
                progress(have, total)
    if have != total:
        raise OSError(f"got {have} of {total} bytes")


def _verify(file: Path, source: Source) -> None:
    """Refuse a file of another size or checksum than was published."""
    size = file.stat().st_size
    wrong = ""
    if source.size is not None and size != source.size:
        wrong = f"{source.size} bytes, but has {size}"
    elif source.md5:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "md5").hexdigest()
        wrong = "" if found == source.md5 else f"the MD5 sum {source.md5}, but has {found}"
    if wrong:
        raise UserError(
            f"{file}: must have {wrong}; it is not what was published at {source.address}: delete "
            "it, and fetch it again"
        )
