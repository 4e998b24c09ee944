"""A real MLflow server on the loopback interface, which can be stopped and killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType

STARTUP = 180.0
"""Seconds in which it must answer; on a busy machine its imports take one."""
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class MlflowServer:
    """Runs inside a `with` block.

    Args:
        database: SQLite file; made if there is none. Log and artifacts lie beside it.
        store: URI of another database that takes its place.
    """

    def __init__(self, database: Path, store: str | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._log = database.with_name("server.txt")
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)),
            *("--backend-store-uri", store or f"sqlite:///{database}"),
            *("--artifacts-destination", str(database.with_name("artifacts"))),
        ]

    def __enter__(self) -> MlflowServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.send(signal.SIGKILL)

    def start(self) -> None:
        """Return when it answers.

        Raises:
            RuntimeError: if it does not, with the end of its log.
        """
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | QUIET,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + STARTUP
        while self._process.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.5)
        self.send(signal.SIGKILL)
        raise RuntimeError(f"MLflow does not answer:\n{self._log.read_text()[-2000:]}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the server; a deadly one is waited for."""
        os.killpg(self._process.pid, number)
        if number == signal.SIGKILL:
            self._process.wait()
