"""Starts Ray for one study, and ends all of it when the study's process ends, however that ends.

Runs as a script in a session of processes of its own, with nothing but Python's library. It says
`up` when Ray has started, with the ids of its servers, and ends it when its standard input closes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

START_LOG = "start.log"
"""What `ray start` says, in Ray's folder."""

PATIENCE = 2.0
"""Seconds that Ray's processes have to end by themselves."""

SERVERS = {"raylet": "raylet", "gcs_server": "GCS"}
"""Programs without which Ray cannot go on, and what its documentation calls them."""


def end_session(session: int, patience: float = 0.0) -> None:
    """End all processes of a session but this one, first by SIGTERM if there is patience."""
    deadline = time.monotonic() + patience
    number = signal.SIGTERM if patience else signal.SIGKILL
    while others := members(session) - {os.getpid()}:
        for process in others:
            with suppress(ProcessLookupError):
                os.kill(process, number)
        time.sleep(0.05)
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        if time.monotonic() > deadline + 10:
            return


def members(session: int) -> set[int]:
    """The living processes of a session; workers of Ray have process groups of their own."""
    states = _states()
    return {
        process for process in states if states[process] != "Z" and _session(process) == session
    }


def _states() -> dict[int, str]:
    """The state of each process: of the system's list, or where there is none as `ps` shows."""
    states: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # A name in parentheses stands before the state.
            states[int(entry.parent.name)] = entry.read_text().rpartition(")")[2].split()[0]
    if not states:
        shown = subprocess.run(
            ["ps", "-axo", "pid=,stat="], capture_output=True, text=True, check=False
        )
        pairs = (line.split() for line in shown.stdout.splitlines())
        states = {int(process): state[0] for process, state in pairs}
    return states


def _session(process: int) -> int:
    with suppress(OSError):
        return os.getsid(process)
    return 0


def _servers() -> dict[int, str]:
    """The servers of Ray in this session, where the system tells the names of programs."""
    found = {}
    for process in members(os.getsid(0)):
        with suppress(OSError):
            name = Path(f"/proc/{process}/comm").read_text().strip()
            if name in SERVERS:
                found[process] = SERVERS[name]
    return found


def main(folder: str, *command: str) -> int:
    """Start, wait, end.

    Args:
        folder: of Ray, removed at the end.
        command: starts Ray and ends when it is up.
    """
    # SLURM sends its warning to every process of a job: it must not end those of Ray.
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    with (Path(folder) / START_LOG).open("wb") as log:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        )
    if done.returncode == 0:
        sys.stdout.write(f"up {json.dumps(_servers())}\n")
        sys.stdout.flush()
        sys.stdin.read()
    end_session(os.getsid(0), PATIENCE)
    if done.returncode == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
