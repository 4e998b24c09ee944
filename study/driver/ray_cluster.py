"""The Ray cluster of a study: one of its own on this machine, or one that someone has started.

The cluster of its own is started by `ray start` in a session of processes of its own, where no
signal of the terminal reaches it, and ends with this process however that ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from study.core.atomic_io import owned_by_current_user
from study.core.errors import MachineError, UserError
from study.driver import ray_supervisor
from study.scheduling import ray_env
from study.scheduling.ray_places import LONGEST_SOCKET, PREFIX, SOCKET, places
from study.space.settings import Resources

logger = logging.getLogger(__name__)

OBJECT_STORE = 200 * 2**20
"""Bytes: nothing of ours travels through Ray's object store but records."""

PAUSES = (0.0, 5.0, 15.0, 30.0)
"""Seconds to wait before each try to start Ray: a machine that is busy now may not be later."""

LIMIT = 240.0
"""Seconds that one try may take; Ray gives up by itself after some 30 to 100."""


PORTS = (
    "port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
"""Given as numbers: for ports that Ray's agents choose its raylet waits 15 s, and then aborts."""

ENVIRONMENT = {
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    # Nobody looks at Ray's own measurements of itself.
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
}
"""Ray's limits on a busy machine, and what a study does without."""

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


def connect(resources: Resources, *, address: str | None = None, cpus: int | None = None) -> int:
    """Join the cluster at `address`, or start one on this machine with `cpus` cores.

    Returns:
        How many trials fit at once.

    Raises:
        MachineError: if Ray does not start, or the cluster does not let us in.
        UserError: if no trial fits.
    """
    if address:
        ray_env.use_cluster()
        _join(address)
    else:
        ray_env.use_private_cluster()
        _head.start(cpus)
        _join(_head.address)
    import ray

    total = ray.cluster_resources()
    fitting = [int(total.get("CPU", 0) / resources.cpus)]
    if total.get("GPU", 0) and resources.gpus:
        fitting.append(int(total["GPU"] / resources.gpus))
    if min(fitting) < 1:
        has = ", ".join(f"{total.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
        raise UserError(f"resources: a trial must fit, but Ray has only {has}; ask for less")
    return min(fitting)


def disconnect() -> None:
    """Leave the cluster, and end it if it is our own."""
    if "ray" in sys.modules:
        import ray

        ray.shutdown()
    _head.stop()


class PrivateHead:
    """A cluster of one node on this machine, for this process alone."""

    def __init__(self) -> None:
        self.address = ""
        self._folder: Path | None = None
        self._lock = -1
        self._process: subprocess.Popen[str] | None = None

    def start(self, cpus: int | None) -> None:
        """Start it, more than once if need be.

        Raises:
            MachineError: with the cause as Ray's logs tell it.
        """
        remove_abandoned()
        for tried, pause in enumerate(PAUSES, start=1):
            time.sleep(pause)
            problem = self._try(cpus)
            if not problem:
                return
            self.stop()
            if tried < len(PAUSES):
                logger.warning("Ray did not start (%s); trying again", problem)
        way_out = WAYS_OUT.get(problem, "look for it in Ray's documentation")
        raise MachineError(
            f"Ray does not start on this machine: {problem}; {way_out}, and run the same command "
            "again: it goes on from what is done"
        )

    def stop(self) -> None:
        """End all its processes and remove its folder; nothing if it does not run."""
        if self._process is not None:
            ray_supervisor.end_session(self._process.pid)
            self._process.communicate()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
        self._process, self._folder = None, None

    def _try(self, cpus: int | None) -> str:
        """What kept it from starting; empty if nothing did."""
        self._folder, self._lock = _private_folder()
        ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        environment = os.environ | {"RAY_TMPDIR": str(self._folder)} | ENVIRONMENT
        environment.pop("RAY_ADDRESS", None)
        self._process = subprocess.Popen(
            [sys.executable, "-I", ray_supervisor.__file__, self._folder, *_command(ports, cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.address = f"127.0.0.1:{ports['port']}"
        if _answer(self._process, LIMIT) == "up":
            return ""
        return cause(self._folder)


def _command(ports: dict[str, int], cpus: int | None) -> list[str]:
    """Of `ray start`; the temporary folder is named by the environment."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--no-monitor"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += [f"--object-store-memory={OBJECT_STORE}", "--disable-usage-stats"]
    command += ["--include-dashboard=false", "--include-log-monitor=false"]
    return [*command, f"--num-cpus={cpus}"] if cpus else command


def _answer(process: subprocess.Popen[str], seconds: float) -> str:
    """The first line that a process prints; empty if it ends, or does not in time."""
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    # Short waits, so that a signal's handler runs at once.
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 0.2)[0]:
            return process.stdout.readline().strip()
    return ""


def _free_ports(count: int) -> list[int]:
    """So many ports of the loopback interface that nobody uses now."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def _private_folder() -> tuple[Path, int]:
    """A folder that only this user can enter, and a lock on it that ends with this process.

    Raises:
        MachineError: if there is no place for it.
    """
    for place in places():
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        except OSError:
            continue
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return folder, lock
    raise MachineError(
        "Ray needs a folder for its sockets, but neither TMPDIR nor /tmp is writable and at most "
        f"{LONGEST_SOCKET - len(SOCKET) - len(PREFIX) - 9} characters long; set TMPDIR to one"
    )


def remove_abandoned() -> None:
    """Remove the folders of studies that were killed, and end what they left running."""
    for folder in (folder for place in places() for folder in place.glob(f"{PREFIX}*")):
        if owned_by_current_user(folder) and not folder.is_symlink() and _is_abandoned(folder):
            _kill_all_of(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether its process has ended, which holds a lock."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        # Made just now, perhaps.
        return time.time() - folder.stat().st_mtime > 3600
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _kill_all_of(folder: Path) -> None:
    """End the processes whose command line names a folder, where the system lists them."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(f"{folder}/") in command.read_bytes():
                os.kill(int(command.parent.name), signal.SIGKILL)


def _join(address: str) -> None:
    """Connect this process to a cluster.

    Raises:
        MachineError: if that is not possible.
    """
    joining = _Joining(address)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        joining.start()
        # Short waits, so that a signal's handler runs at once.
        while joining.is_alive():
            joining.join(0.2)
    finally:
        # Ray must not be left half connected.
        if joining.ident is not None:
            joining.join(LIMIT)
        # Its library takes signals past Python.
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
    if joining.problem:
        what = _known(joining.problem) or _last_line(joining.problem.partition("\n")[0])
        way_out = WAYS_OUT.get(what, "start Ray there with `ray start --head`")
        raise MachineError(f"Ray at {address}: cannot connect: {what}; {way_out}")


class _Joining(threading.Thread):
    """Connects; in the main thread Ray would take SIGTERM for itself."""

    def __init__(self, address: str) -> None:
        super().__init__(name="joining Ray", daemon=True)
        self.address, self.problem = address, ""

    def run(self) -> None:
        """Connect, or keep what Ray says; its libraries write some to the standard error."""
        import ray

        with tempfile.TemporaryFile() as native:
            try:
                with _native_errors_to(native.fileno()):
                    ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
            except Exception as problem:
                native.seek(0)
                self.problem = f"{problem}\n{native.read().decode(errors='replace')}"


@contextmanager
def _native_errors_to(file: int) -> Iterator[None]:
    """Send what libraries write to the standard error, past Python, into a file."""
    sys.stderr.flush()
    before = os.dup(2)
    os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def cause(folder: Path) -> str:
    """Why Ray did not start, from its logs: one of `CAUSES`, or the last line of what it said."""
    logs = [folder / ray_supervisor.START_LOG, *sorted(folder.glob("session_2*/logs/*.*"))]
    texts = [_tail(log) for log in logs if log.suffix in (".log", ".out", ".err")]
    return _known("\n".join(texts)) or _last_line(texts[0]) or "Ray does not say why"


def _known(text: str) -> str:
    found = (meaning for pattern, meaning in CAUSES if re.search(pattern, text))
    return next(found, "")


def _tail(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")[-20_000:]
    return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


_head = PrivateHead()
