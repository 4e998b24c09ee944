"""Why Ray does not start or connect, as its logs tell it, and the way out."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

from study.driver import ray_supervisor

CAUSES = (
    (r"InvalidAuthToken|Missing authorization|authentication token", "the token is not accepted"),
    (r"AF_UNIX path|path.{0,40}too long|File name too long", "the path of a socket is too long"),
    (r"No space left|ENOSPC|Disk quota exceeded", "the disk is full"),
    (r"Version mismatch", "versions of Ray or Python differ"),
    (r"Cannot allocate memory|bad_alloc|MemoryError", "memory is short"),
    (r"/dev/shm|object store.*(too small|memory)", "shared memory is short"),
    (r"Address already in use|port.*(in use|occupied)", "a port is taken"),
    (r"Permission denied|Read-only file system", "a folder is not writable"),
    (r"Too many open files", "too many files are open"),
    (r"Resource temporarily unavailable|can't start new thread", "too many processes"),
    (r"Timed out waiting for file|timed out|GCS has become overloaded", "it was too slow"),
)
"""What Ray's logs say, and what that means."""

SPACE = 10 * 2**20
"""Bytes that the logs and sockets of a start need."""

WAYS_OUT = {
    "the token is not accepted": "give this machine the cluster's token (`ray get-auth-token`)",
    "the path of a socket is too long": "export TMPDIR=/tmp",
    "the disk is full": "free some space in the folder of temporary files",
    "versions of Ray or Python differ": "install the same versions here and on the cluster",
    "memory is short": "end other programs, or run fewer trials at once: --max-concurrent 1",
    "shared memory is short": "empty /dev/shm, or start the container with --shm-size=1g",
    "a port is taken": "end what takes the ports of 127.0.0.1",
    "a folder is not writable": "set TMPDIR to a folder of yours",
    "too many files are open": "ulimit -n 65536",
    "too many processes": "ulimit -u, or end other programs",
    "it was too slow": "wait until other programs leave it processors",
}


def start_failure(folder: Path) -> str:
    """Why Ray did not start, from its logs: one of `CAUSES`, or the last line of what it said."""
    # On a full disk no log can say so.
    if is_full(folder):
        return "the disk is full"
    logs = [folder / ray_supervisor.START_LOG, *sorted(folder.glob("ray/session_2*/logs/*.*"))]
    texts = [_tail(log) for log in logs if log.suffix in (".log", ".out", ".err")]
    return known_cause("\n".join(texts)) or last_line(texts[0]) or "Ray does not say why"


def is_full(folder: Path) -> bool:
    """Whether the disk of Ray's folder lacks the space that Ray needs."""
    return shutil.disk_usage(folder).free < SPACE


def known_cause(text: str) -> str:
    """What a text of Ray's means, in the words of `CAUSES`; empty if it is none of them."""
    causes = (meaning for pattern, meaning in CAUSES if re.search(pattern, text))
    return next(causes, "")


def _tail(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")[-20_000:]
    return ""


def last_line(text: str) -> str:
    """The last line that is not empty, at most 200 characters of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
