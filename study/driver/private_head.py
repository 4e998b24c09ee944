"""A Ray cluster of one node on this machine, for this process alone.

It is started by `ray start` in a session of processes of its own, where no signal of the terminal
reaches it, and ends with this process however that ends.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from study.core.atomic_io import owned_by_current_user
from study.core.errors import MACHINE_FAULT, MachineError
from study.core.paths import LONGEST_SOCKET, PREFIX, SOCKET, socket_dirs
from study.driver import ray_supervisor
from study.driver.ray_diagnosis import WAYS_OUT, is_full, start_failure

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


class PrivateHead:
    """Starts and stops the cluster."""

    def __init__(self) -> None:
        self.address = ""
        self._folder: Path | None = None
        self._lock = -1
        self._process: subprocess.Popen[str] | None = None
        self._watching: threading.Thread | None = None
        self._stopping = False

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
            f"Ray does not start on this machine: {problem}; {way_out}, then rerun "
            "the same command; completed work is reused"
        )

    def stop(self) -> None:
        """End all its processes and remove its folder; nothing if it does not run."""
        self._stopping = True
        if self._process is not None:
            ray_supervisor.end_session(self._process.pid)
            # It waits for what is still to be read.
            if self._watching is not None:
                self._watching.join()
            self._process.communicate()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
        self._process, self._folder, self._watching = None, None, None

    def _try(self, cpus: int | None) -> str:
        """Start it once; returns what kept it from starting, or an empty text."""
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
        said = _answer(self._process, LIMIT)
        if said.startswith("up"):
            self._watch(self._process, json.loads(said.removeprefix("up")))
            return ""
        return start_failure(self._folder)

    def _watch(self, process: subprocess.Popen[str], servers: dict[str, str]) -> None:
        """Abort if Ray ends before the study: its library would end this process without a word.

        Args:
            process: Ray's supervisor.
            servers: process id → which server of Ray it is.
        """
        self._stopping = False
        ends = {descriptor: servers[pid] for pid in servers for descriptor in _end_of(int(pid))}
        folder = self._folder
        assert process.stdout is not None
        supervisor = process.stdout.fileno()

        def wait() -> None:
            ended, _, _ = select.select([supervisor, *ends], [], [])
            for descriptor, server in ends.items():
                os.close(descriptor)
                if descriptor in ended and not self._stopping and folder is not None:
                    _abort(server, folder)

        self._watching = threading.Thread(target=wait, name="watching Ray", daemon=True)
        self._watching.start()


def _end_of(process: int) -> list[int]:
    """A descriptor that can be read when a process has ended, where the system has such."""
    with suppress(AttributeError, OSError):
        return [os.pidfd_open(process)]
    return []


def _abort(server: str, folder: Path) -> None:
    """End this process at once, because nothing that waits for Ray would ever return."""
    why = "killed, crashed, or short of memory"
    if is_full(folder):
        why = f"no space is left in {folder.parent}"
    rerun = "rerun the same command; completed work is reused"
    os.write(2, f"Ray's {server} ended while the study ran ({why}); {rerun}\n".encode())
    os._exit(MACHINE_FAULT)


def _command(ports: dict[str, int], cpus: int | None) -> list[str]:
    """The command of `ray start`; the temporary folder is named by the environment."""
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
    for place in socket_dirs():
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
    for folder in (folder for place in socket_dirs() for folder in place.glob(f"{PREFIX}*")):
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
