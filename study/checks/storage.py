"""Checks of the results folder, and of the servers that a study uses."""

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

from study.checks.finding import GIB, Environment, Finding, ok
from study.core.atomic_io import is_locked
from study.core.errors import UserError
from study.core.records import without_password
from study.tracking.mlflow_sql import count_runs
from study.tracking.postgres import is_postgres, require_answer

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "fuse.sshfs", "9p")
"""Network file systems, on which the locks of a database file are unreliable."""


def _disk(environment: Environment) -> Finding:
    free = shutil.disk_usage(environment.existing_folder).free / GIB
    if free < 0.5:
        return Finding("failed", f"{free:.2f} GB free", "delete something, or choose another --out")
    if free < 5:
        return Finding("warning", f"{free:.1f} GB free", "the paper's data sets take 3 GB each")
    return ok(f"{free:.0f} GB free")


def _writable(environment: Environment) -> Finding:
    try:
        with _scratch(environment):
            return ok(str(environment.out))
    except OSError as problem:
        return Finding(
            "failed",
            f"{environment.existing_folder}: {problem.strerror}",
            f"chown it to {os.environ.get('USER', 'yourself')}, or choose another --out",
        )


def _owner(environment: Environment) -> Finding:
    """Check that all results are writable: studies of other users cannot be resumed."""
    foreign = [
        path
        for folder in ("", "data", "work", "studies")
        for path in (environment.out / folder).glob("*")
        if not os.access(path, os.W_OK)
    ]
    if foreign:
        return Finding(
            "failed",
            f"{len(foreign)} files of other users, such as {foreign[0]}",
            f"chown -R $USER {environment.out}, or choose another --out",
        )
    return ok("all files are writable")


def _sync(environment: Environment) -> Finding:
    """Measure the time of a durable write; each epoch makes several."""
    with _scratch(environment) as folder:
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


def _locks(environment: Environment) -> Finding:
    from filelock import FileLock

    with _scratch(environment) as folder, FileLock(folder / "lock"):
        works = is_locked(folder / "lock")
    if not works:
        return Finding(
            "failed",
            "file locking does not work; two drivers could run one study",
            "mount the file system with locks (NFS: without `nolock`), or choose another --out",
        )
    return ok("file locking works")


def _file_system(environment: Environment) -> Finding:
    kind = _kind_of_mount(environment.existing_folder)
    if kind in NETWORK and not environment.tracking_uri:
        return Finding(
            "warning",
            f"{kind}: MLflow's database file would be on a network share",
            "start `mlflow server` on a local disk and name it with --tracking-uri",
        )
    return ok(kind or "unknown")


def _kind_of_mount(path: Path) -> str:
    """File system type of a path, by its nearest mount point; empty if unknown."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    mounts = {Path(line.split()[1]): line.split()[2] for line in lines}
    resolved = path.resolve()
    folders = (resolved, *resolved.parents)
    return next(mounts[folder] for folder in folders if folder in mounts)


def _database(environment: Environment) -> Finding:
    path = environment.out / "mlflow.db"
    if environment.tracking_uri or not path.exists():
        return ok("not there yet" if not environment.tracking_uri else "not used")
    try:
        count = count_runs(path)
    except sqlite3.Error as problem:
        return Finding(
            "failed",
            f"{path}: {problem}",
            "move the file away and rerun each study, which writes its records again",
        )
    return ok(f"{count} runs")


def _tracking(environment: Environment) -> Finding:
    uri = environment.tracking_uri
    if uri is not None and is_postgres(uri):
        return _postgres(uri)
    if uri is None or not uri.startswith("http"):
        return ok("database in --out" if uri is None else "database")
    from urllib.request import urlopen

    try:
        with urlopen(f"{uri.rstrip('/')}/health", timeout=4) as answer:
            return ok(f"responds with status {answer.status}")
    except (OSError, ValueError) as problem:
        shown = without_password(uri)
        reason = str(problem).replace(uri, shown)
        return Finding("failed", f"{shown}: {reason}", "start `mlflow server` there, or correct it")


def _postgres(uri: str) -> Finding:
    try:
        require_answer(uri)
    except UserError as problem:
        reason, _, way = str(problem).partition("; ")
        return Finding("failed", reason, way)
    return ok("database answers")


def _cluster(environment: Environment) -> Finding:
    if environment.address is None:
        return ok("this machine")
    host, _, port = environment.address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=4).close()
    except (OSError, ValueError) as problem:
        return Finding(
            "failed", f"{environment.address}: {problem}", "`ray start --head --port 6379` there"
        )
    return ok(f"{environment.address} responds")


def _clock(environment: Environment) -> Finding:
    with _scratch(environment) as folder:
        file = folder / "now"
        file.touch()
        offset = file.stat().st_mtime - time.time()
    if time.time() < 1.75e9:
        return Finding("failed", time.strftime("%Y-%m-%d"), "set the clock: timedatectl")
    if abs(offset) > 5:
        return Finding(
            "warning", f"the file server's clock is {offset:+.0f} s off", "run NTP on both machines"
        )
    return ok(time.strftime("%Y-%m-%d %H:%M %Z"))


def _stale(environment: Environment) -> Finding:
    """Find studies that were interrupted or failed."""
    from study.planning.study_state import study_state

    unfinished = []
    for file in sorted(environment.out.glob("studies/*/study.json")):
        try:
            if study_state(environment.out, file.parent.name).word in ("interrupted", "failed"):
                unfinished.append(file.parent.name)
        except UserError:
            continue
    if unfinished:
        return Finding(
            "warning",
            f"not finished: {', '.join(unfinished)}",
            f"python -m study.status {unfinished[0]} --out {environment.out}",
        )
    return ok("none")


def _leftovers(environment: Environment) -> Finding:
    """Find temporary files left by writes that a crash interrupted."""
    hour_ago = time.time() - 3600
    leftovers = [
        path
        for pattern in ("work/*/.*.tmp", "studies/*/.*.tmp", "data/*.partial")
        for path in environment.out.glob(pattern)
        if path.stat().st_mtime < hour_ago
    ]
    if leftovers:
        return Finding(
            "warning",
            f"{len(leftovers)}, such as {leftovers[0]}",
            f"rm -r {leftovers[0]} and the like",
        )
    return ok("none")


@contextmanager
def _scratch(environment: Environment) -> Iterator[Path]:
    """Make a temporary folder in the results folder, or where it would be."""
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=environment.existing_folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


CHECKS: dict[str, Callable[[Environment], Finding]] = {
    "disk": _disk,
    "results writable": _writable,
    "ownership": _owner,
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
