"""Checks of the folder of all results, and of the servers that a study writes to."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from study.checks.finding import GIB, Finding, Place, ok
from study.core.atomic_io import is_locked
from study.tracking.mlflow_sql import count_runs

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "fuse.sshfs", "9p")
"""File systems of other machines, on which a database file loses locks."""


def _disk(place: Place) -> Finding:
    free = shutil.disk_usage(place.nearest).free / GIB
    if free < 0.5:
        return Finding("failed", f"{free:.2f} GB free", "delete something, or choose another --out")
    if free < 5:
        return Finding("warning", f"{free:.1f} GB free", "the paper's data sets take 3 GB each")
    return ok(f"{free:.0f} GB free")


def _writable(place: Place) -> Finding:
    try:
        with _scratch(place):
            return ok(str(place.out))
    except OSError as problem:
        return Finding(
            "failed",
            f"{place.nearest}: {problem.strerror}",
            f"chown it to {os.environ.get('USER', 'yourself')}, or choose another --out",
        )


def _owner(place: Place) -> Finding:
    """Another user's files cannot be continued."""
    strange = [
        path
        for folder in ("", "data", "work", "studies")
        for path in (place.out / folder).glob("*")
        if not os.access(path, os.W_OK)
    ]
    if strange:
        return Finding(
            "failed",
            f"{len(strange)} of other users, such as {strange[0]}",
            f"chown -R $USER {place.out}, or choose another --out",
        )
    return ok("all yours")


def _sync(place: Place) -> Finding:
    """Every epoch waits for the disk several times."""
    with _scratch(place) as folder:
        started = time.monotonic()
        for number in range(5):
            with (folder / f"{number}.tmp").open("wb") as opened:
                opened.write(b"x" * 100_000)
                opened.flush()
                os.fsync(opened.fileno())
            (folder / f"{number}.tmp").rename(folder / str(number))
        each = (time.monotonic() - started) / 5
    if each > 0.2:
        return Finding(
            "warning",
            f"{1000 * each:.0f} ms per file forced to disk; each epoch writes some",
            "choose an --out on a local or less busy disk",
        )
    return ok(f"{1000 * each:.1f} ms per file")


def _locks(place: Place) -> Finding:
    from filelock import FileLock

    with _scratch(place) as folder, FileLock(folder / "lock"):
        holds = is_locked(folder / "lock")
    if not holds:
        return Finding(
            "failed",
            "a lock does not keep others away; two drivers could run one study",
            "mount the file system with locks (NFS: without `nolock`), or choose another --out",
        )
    return ok("hold")


def _file_system(place: Place) -> Finding:
    kind = _kind_of_mount(place.nearest)
    if kind in NETWORK and not place.tracking_uri:
        return Finding(
            "warning",
            f"{kind}: MLflow's database file would be on a network share",
            "start `mlflow server` on a local disk and name it with --tracking-uri",
        )
    return ok(kind or "unknown")


def _kind_of_mount(path: Path) -> str:
    """Type of the file system of a path, by the longest mount point above it; or empty."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    mounts = {Path(line.split()[1]): line.split()[2] for line in lines}
    here = path.resolve()
    return next(mounts[above] for above in (here, *here.parents) if above in mounts)


def _database(place: Place) -> Finding:
    path = place.out / "mlflow.db"
    if place.tracking_uri or not path.exists():
        return ok("not there yet" if not place.tracking_uri else "not used")
    try:
        count = count_runs(path)
    except sqlite3.Error as problem:
        return Finding(
            "failed",
            f"{path}: {problem}",
            "move the file away and run each study again: its records are written anew",
        )
    return ok(f"{count} runs")


def _tracking(place: Place) -> Finding:
    uri = place.tracking_uri
    if uri is None or not uri.startswith("http"):
        return ok("database in --out" if uri is None else "database")
    from urllib.request import urlopen

    try:
        with urlopen(f"{uri.rstrip('/')}/health", timeout=4) as answer:
            return ok(f"answers {answer.status}")
    except (OSError, ValueError) as problem:
        return Finding("failed", f"{uri}: {problem}", "start `mlflow server` there, or correct it")


def _cluster(place: Place) -> Finding:
    if place.address is None:
        return ok("this machine")
    host, _, port = place.address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=4).close()
    except (OSError, ValueError) as problem:
        return Finding(
            "failed", f"{place.address}: {problem}", "`ray start --head --port 6379` there"
        )
    return ok(f"{place.address} answers")


def _clock(place: Place) -> Finding:
    with _scratch(place) as folder:
        file = folder / "now"
        file.touch()
        apart = file.stat().st_mtime - time.time()
    if time.time() < 1.75e9:
        return Finding("failed", time.strftime("%Y-%m-%d"), "set the clock: timedatectl")
    if abs(apart) > 5:
        return Finding(
            "warning", f"the file server's clock is {apart:+.0f} s off", "run NTP on both machines"
        )
    return ok(time.strftime("%Y-%m-%d %H:%M %Z"))


def _stale(place: Place) -> Finding:
    """Studies that ended without being done."""
    from study.core.errors import UserError
    from study.planning.study_state import study_state

    open_ones = []
    for file in sorted(place.out.glob("studies/*/study.json")):
        try:
            if study_state(place.out, file.parent.name).word in ("interrupted", "failed"):
                open_ones.append(file.parent.name)
        except UserError:
            continue
    if open_ones:
        return Finding(
            "warning",
            f"not finished: {', '.join(open_ones)}",
            f"python -m study.status {open_ones[0]} --out {place.out}",
        )
    return ok("none")


def _leftovers(place: Place) -> Finding:
    """Temporary files of writes that a crash has cut off."""
    hour_ago = time.time() - 3600
    found = [
        path
        for pattern in ("work/*/.*.tmp", "studies/*/.*.tmp", "data/*.partial")
        for path in place.out.glob(pattern)
        if path.stat().st_mtime < hour_ago
    ]
    if found:
        return Finding(
            "warning", f"{len(found)}, such as {found[0]}", f"rm -r {found[0]} and the like"
        )
    return ok("none")


@contextmanager
def _scratch(place: Place) -> Iterator[Path]:
    """A folder of our own where the results are, or would be."""
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=place.nearest))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


CHECKS: dict[str, Callable[[Place], Finding]] = {
    "disk": _disk,
    "results writable": _writable,
    "results yours": _owner,
    "disk latency": _sync,
    "file locks": _locks,
    "file system": _file_system,
    "MLflow database": _database,
    "MLflow server": _tracking,
    "Ray": _cluster,
    "clock": _clock,
    "stale studies": _stale,
    "leftovers": _leftovers,
}
