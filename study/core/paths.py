"""Paths and small files that a user names, and folders for sockets."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

from study.core.errors import UserError

LARGEST_TEXT = 10 * 2**20
"""Bytes of a space or of a user's code; whatever is larger was named by mistake."""

LONGEST_SOCKET = 107 if sys.platform == "linux" else 103
"""Bytes of a Unix socket's path."""

SOCKET = "/ray/session_2026-12-31_23-59-59_999999_9999999/sockets/plasma_store"
"""What Ray adds to the path of its folder."""

PREFIX = "study-ray-"

NO_ADDRESS = "must be a path here, not an address; mount the bucket or share, or copy what is there"
"""What is said of `s3://bucket/runs` and the like."""


class Address(str):
    """Where a file of data lies elsewhere, such as s3://bucket/water.extxyz."""

    __slots__ = ()


def data_of(text: str) -> Path | Address:
    """Return the path or address of data that a command's argument names.

    Raises:
        argparse.ArgumentTypeError: if it is empty.
    """
    return Address(text) if "://" in text else path_of(text)


def path_of(text: str) -> Path:
    """Return the path that a command's argument names.

    Raises:
        argparse.ArgumentTypeError: if it is empty, as that of an unset variable of the shell, which
            `Path` would take for the current folder; or an address such as s3://bucket, which it
            would take for a folder called "s3:".
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"must name a file or folder, but got {text!r}")
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text}: {NO_ADDRESS}")
    return Path(text)


def root_of(text: str) -> Path:
    """Return the folder of all results that `--out` names.

    Raises:
        argparse.ArgumentTypeError: see `path_of`.
        UserError: if it is a file; a line that says so is enough, without all other options.
    """
    path = path_of(text)
    if os.path.isfile(path):  # noqa: PTH113 - answers for names that no file can have, too
        raise UserError(f"argument --out: {text} is a file; give a folder")
    return path


def real_path(path: Path) -> Path:
    """Return the absolute path without links, of a file or folder that need not exist.

    Raises:
        UserError: if its links form a loop, or it is no path at all.
    """
    try:
        real = path.expanduser().resolve()
        os.lstat(real)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return real
    except (OSError, RuntimeError, ValueError) as problem:
        loop = isinstance(problem, RuntimeError) or _is_loop(problem)
        reason = "its links form a loop" if loop else str(problem)
        raise UserError(
            f"{path}: cannot be read or written ({reason}); name another path"
        ) from None
    return real


def follow_links(path: Path) -> Path:
    """Return the target of a path that the user names for results, or itself without a link."""
    real = real_path(path)
    return path if Path(os.path.abspath(path)) == real else real  # noqa: PTH100 - as below


def require_no_links(path: Path) -> None:
    """Refuse to write to a path with a symbolic link in it, which may lead anywhere.

    A results folder may come from somebody else. What the user names is resolved by
    `follow_links` before, so that whatever link is left was met inside the folder.

    Raises:
        UserError: naming the first link.
    """
    if os.path.realpath(path) == os.path.abspath(path):  # noqa: PTH100 - `absolute` keeps `..`
        return
    whole = path.absolute()
    for place in (*reversed(whole.parents), whole):
        if place.is_symlink():
            raise UserError(
                f"{place}: is a symbolic link, which nothing is written through; put the file or "
                "folder itself there, or name the link's target as the place of the results"
            )


def require_own_file(path: Path) -> None:
    """Refuse to write in place to a file that a link, symbolic or hard, shares with another place.

    Raises:
        UserError: naming the link.
    """
    require_no_links(path)
    with suppress(FileNotFoundError, NotADirectoryError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            raise UserError(
                f"{path}: has {status.st_nlink} names (hard links), so that writing to it would "
                "change a file elsewhere, too; put a copy in its place"
            )


def require_no_links_below(folder: Path) -> None:
    """Refuse a folder that others write to, such as MLflow, if it holds a link.

    Raises:
        UserError: naming the link.
    """
    require_no_links(folder)
    for above, folders, files in os.walk(folder):
        for place in (Path(above, name) for name in folders):
            if place.is_symlink():
                require_no_links(place)
        for place in (Path(above, name) for name in files):
            require_own_file(place)


def require_writable(folder: Path) -> None:
    """Try to write a file to a folder, or to the nearest existing one above it.

    Raises:
        UserError: if that is refused.
    """
    try:
        tempfile.TemporaryFile(dir=nearest_existing(folder)).close()
    except OSError as problem:
        raise UserError(
            f"{folder}: cannot be written to ({problem.strerror}); choose another --out or "
            "--tracking-uri"
        ) from None


def nearest_existing(folder: Path) -> Path:
    """Return a folder, or the nearest above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _is_loop(problem: Exception) -> bool:
    return isinstance(problem, OSError) and problem.errno == errno.ELOOP


def read_small_file(path: Path, what: str) -> bytes:
    """Read a whole file that a user names, such as a space.

    Args:
        path: of the file.
        what: it should be, for the message.

    Raises:
        UserError: if it cannot be read, is no regular file, or is too large to be one of those.
    """
    try:
        # A pipe or terminal would block, a device might never end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_TEXT:
                raise UserError(
                    f"{path}: must be {what}, a regular file of at most {LARGEST_TEXT >> 20} MB"
                )
            return opened.read(LARGEST_TEXT)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); name {what}") from None
    except ValueError as problem:
        raise UserError(f"{path}: cannot be read ({problem}); name {what}") from None


def private_folder(name: str, kind: Literal["cache", "config"] = "cache") -> Path | None:
    """Return a folder of this user into which nobody else can write.

    Args:
        name: of the folder.
        kind: below `XDG_CACHE_HOME` or `~/.cache`, or the same for settings, `~/.config`; where
            that cannot be written, below the folder of temporary files.

    Returns:
        The folder, made if it was missing; none if neither place can have it.
    """
    home = os.environ.get(f"XDG_{kind.upper()}_HOME", "")
    if not Path(home).is_absolute():
        home = os.path.expanduser(f"~/.{kind}")  # noqa: PTH111 - `Path` raises without a home
    temporary = Path(tempfile.gettempdir()) / f"pretraining-study-{os.geteuid()}"
    for place in (Path(home) / "pretraining-study", temporary):
        with suppress(OSError, UserError):
            folder = real_path(place.parent) / place.name
            if not place.is_absolute():
                continue
            folder.parent.mkdir(parents=True, exist_ok=True)
            if all(map(_made_private, (folder, folder / name))):
                return folder / name
    return None


def keep_inductor_private() -> None:
    """Name a folder of this user to torch's Inductor, for this process and those that it starts.

    Torch makes one as soon as torch-geometric is imported, by default among the temporary files,
    where it stays.
    """
    folder = private_folder("inductor")
    if folder is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _made_private(folder: Path) -> bool:
    """Make a folder unless it is there; tell whether this user can write to it, and nobody else."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
    return private and found.st_uid == os.geteuid() and os.access(folder, os.W_OK)


def socket_dirs() -> list[Path]:
    """Folders in which Ray's own may lie: as short as its sockets need, and writable."""
    candidates = dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"])
    return [
        Path(place)
        for place in candidates
        if len(os.fsencode(f"{place}/{PREFIX}12345678{SOCKET}")) <= LONGEST_SOCKET
        and os.access(place, os.W_OK)
    ]
