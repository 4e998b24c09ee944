"""Joins a Ray cluster: one of the study's own here, or one that someone has started."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from study.core.errors import MachineError, UserError
from study.driver import ray_env
from study.driver.private_head import PrivateHead
from study.driver.ray_diagnosis import WAYS_OUT, known_cause, last_line
from study.space.settings import Resources

LIMIT = 240.0
"""Seconds that connecting may take; Ray gives up by itself after some 30 to 100."""


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

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpus = bool(resources.gpus and any(node.get("GPU", 0) for node in nodes))
    fitting = sum(_fitting(resources, node, on_gpus=on_gpus) for node in nodes)
    if fitting < 1:
        has = " and ".join(
            ", ".join(f"{node.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU")) for node in nodes
        )
        raise UserError(f"resources: a trial must fit, but Ray has only {has}; ask for less")
    return fitting


def _fitting(resources: Resources, node: dict[str, float], *, on_gpus: bool) -> int:
    """How many trials fit on a node of Ray; one is never on two."""
    fitting = int(node.get("CPU", 0) / resources.total_cpus)
    if on_gpus:
        fitting = min(fitting, int(node.get("GPU", 0) / resources.total_gpus))
    return fitting


def disconnect() -> None:
    """Leave the cluster, and end it if it is our own."""
    if "ray" in sys.modules:
        import ray

        ray.shutdown()
    _head.stop()


def _join(address: str) -> None:
    """Connect this process to a cluster.

    Raises:
        MachineError: if that is not possible.
    """
    joining = _Joining(address)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        joining.begin()
        # Short waits, so that a signal's handler runs at once.
        while joining.is_alive():
            joining.join(0.2)
    finally:
        # Ray must not be left half connected: its library waits a minute for a server that has been
        # ended meanwhile, and then ends this process without a word. On a busy machine a signal
        # may come before the thread has begun to run, and is not known to be alive.
        joining.done.wait(LIMIT)
        # Its library takes signals past Python.
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
    if joining.problem:
        what = known_cause(joining.problem) or last_line(joining.problem.partition("\n")[0])
        way_out = WAYS_OUT.get(what, "start Ray there with `ray start --head`")
        raise MachineError(f"Ray at {address}: cannot connect: {what}; {way_out}")


class _Joining(threading.Thread):
    """Connects; in the main thread Ray would take SIGTERM for itself."""

    def __init__(self, address: str) -> None:
        super().__init__(name="joining Ray", daemon=True)
        self.address, self.problem = address, ""
        self.done = threading.Event()

    def begin(self) -> None:
        """Start; if no thread can be started there is nothing to wait for."""
        try:
            self.start()
        except RuntimeError as problem:
            self.done.set()
            self.problem = str(problem)

    def run(self) -> None:
        """Connect, and say that this is over, however it ended."""
        try:
            self._connect()
        finally:
            self.done.set()

    def _connect(self) -> None:
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


_head = PrivateHead()
