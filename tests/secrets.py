"""Search all that a real study leaves for the secrets that it was given.

`python -m tests.secrets` runs a small study with Ray against an MLflow server that wants a
password, with cloud keys and tokens in the environment. While it runs and afterwards every file
below its folder is searched (results, MLflow's tables and artifacts, Ray's logs, home and temporary
files), and the terminal and the command lines of its processes. Exit codes: 0 nothing found, 1
something.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import psutil
import pyarrow.parquet as pq

from tests.chaos.study import SPACE
from tests.mlflow_server import MlflowServer

USER = "someone"
VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "GITHUB_TOKEN",
    "HF_TOKEN",
    "WANDB_API_KEY",
)
"""Each gets a secret of its own."""
KEPT = ("host", "content-length", "connection", "transfer-encoding", "authorization")
"""Headers of a request that are not passed on."""
LONGEST = 400.0
"""Seconds that the study may take."""


def spellings(secret: str) -> set[bytes]:
    """How a secret may be written: as it is, in a URL, in base64 at any offset, in hexadecimal."""
    found = {secret.encode(), quote(secret, safe="").encode(), secret.encode().hex().encode()}
    for offset in range(3):
        # The first and last letters of base64 depend on what stands around.
        found.add(base64.b64encode(b"x" * offset + secret.encode())[4:-4])
    return found


class Search:
    """Remembers which secrets were seen where.

    Args:
        known: name → secret.
    """

    def __init__(self, known: dict[str, str]) -> None:
        self.known = {name: spellings(secret) for name, secret in known.items()}
        self.found: set[str] = set()
        self.files = 0
        self._read: dict[Path, tuple[int, int]] = {}

    def text(self, place: str, content: bytes) -> None:
        """Search some content."""
        for name, written in self.known.items():
            if any(each in content for each in written):
                self.found.add(f"{place}: {name}")

    def folder(self, folder: Path) -> None:
        """Search all files below a folder that have changed since they were last searched."""
        for above, _, names in os.walk(folder):
            for path in (Path(above, name) for name in names):
                try:
                    status = path.stat()
                    if path.is_file() and self._read.get(path) != (
                        state := (status.st_size, status.st_mtime_ns)
                    ):
                        self._read[path] = state
                        self._file(path)
                except OSError:
                    continue  # Temporary files come and go.

    def _file(self, path: Path) -> None:
        self.files += 1
        self.text(str(path), str(path).encode() + path.read_bytes())
        if path.suffix == ".parquet":
            self.text(str(path), str(pq.read_table(path).to_pylist()).encode())

    def processes(self, driver: psutil.Process) -> None:
        """Search the command lines of all processes that a driver has started."""
        for process in driver.children(recursive=True):
            try:
                self.text(f"command line of {process.name()}", " ".join(process.cmdline()).encode())
            except psutil.Error:
                continue

    def conclude(self, problems: Sequence[str] = ()) -> int:
        """Print problems, and which secrets were found where; the exit code, 0 without any."""
        for line in (*problems, *sorted(self.found)):
            sys.stdout.write(f"{line}\n")
        wrong = len(problems) + len(self.found)
        sys.stdout.write(f"{self.files} files searched; {wrong} problems\n")
        return int(bool(wrong))


def gate(server: str, password: str) -> ThreadingHTTPServer:
    """Serve what a server answers to whoever knows the password."""
    wanted = "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()

    class Gate(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.end_headers()
                return
            length = int(self.headers.get("Content-Length", 0))
            headers = {n: v for n, v in self.headers.items() if n.lower() not in KEPT}
            body = self.rfile.read(length) or None
            asked = Request(server + self.path, body, headers, method=self.command)
            try:
                with urlopen(asked, timeout=60) as answer:
                    status, content, kind = answer.status, answer.read(), answer.headers
            except HTTPError as problem:
                status, content, kind = problem.code, problem.read(), problem.headers
            self.send_response(status)
            self.send_header("Content-Type", kind.get("Content-Type", ""))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    made = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    Thread(target=made.serve_forever, daemon=True).start()
    return made


def study(folder: Path, uri: str, known: dict[str, str], search: Search) -> tuple[int, str]:
    """Run a study and search meanwhile; returns its exit code and what it printed."""
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    (folder / "secret.yaml").write_text(SPACE)
    chosen = ["--space", "secret.yaml", "--profile", "search", "--tracking-uri", uri]
    command = [sys.executable, "-m", "study.run", *chosen]
    environment = os.environ | {name: known[name] for name in VARIABLES}
    environment |= {"HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    output = folder / "terminal.txt"
    with output.open("wb") as opened:
        driver = psutil.Popen(
            command, cwd=folder, env=environment, stdout=opened, stderr=subprocess.STDOUT
        )
    end = time.monotonic() + LONGEST
    while driver.poll() is None and time.monotonic() < end:
        search.folder(folder)
        search.processes(driver)
        time.sleep(0.3)
    if driver.poll() is None:
        driver.terminate()
        driver.wait()
    return int(driver.returncode), output.read_text()


def main() -> int:
    """Run the study, search, and print what was found where."""
    argparse.ArgumentParser(prog="python -m tests.secrets", description=__doc__).parse_args()
    known = {name: secrets.token_hex(20) for name in (*VARIABLES, "password")}
    known["password"] += "@:/?#"
    search = Search(known)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as temporary:
        folder, served = Path(temporary) / "user", Path(temporary) / "server"
        folder.mkdir()
        served.mkdir()
        with MlflowServer(served / "mlflow.db") as server:
            door = gate(server.address, known["password"])
            host = f"127.0.0.1:{door.server_port}"
            uri = f"http://{USER}:{quote(known['password'], safe='')}@{host}"
            code, printed = study(folder, uri, known, search)
            door.shutdown()
        search.folder(folder)
        search.folder(served)
        whole = code == 0 and (folder / "runs").exists() and "Report:" in printed
    return search.conclude([] if whole else [printed[-2000:]])


if __name__ == "__main__":
    sys.exit(main())
