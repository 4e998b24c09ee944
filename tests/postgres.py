"""Record small studies in a real Postgres: through an MLflow server, and without one.

`python -m tests.postgres` starts Postgres on a free port, with a password, in a folder that it
deletes. A study records by way of the server that `study/README.md` documents, the same one once
more straight to a database of its own; the tables of both must hold the same points. Passwords
come from the environment and from `~/.pgpass`, and must be in no file. Exit codes: 0 all holds, 1
something does not, 69 there is no Postgres here, or no psycopg.
"""

from __future__ import annotations

import argparse
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from mlflow import MlflowClient

from study.core.records import JobResult
from tests.mlflow_server import MlflowServer
from tests.secrets import USER, Search, gate
from tests.tracking.recording import a_trial, opened, record, runs

SPACE = """\
question: Are records in Postgres the same?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 3, frames: 3}
  model: {name: egnn, hidden: 8, layers: 2}
  pretrain:
    choice:
      - null
      - {task: {name: masking, masking_ratio: 0.5}, epochs: 2, batch_size: 2}
  finetune: {task: {name: energy_forces}, epochs: 3, batch_size: 2}
"""


def programs() -> Path | None:
    """Folder of Postgres' programs; Debian's is not among those that are searched."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, debian), os.environ["PATH"]]))
    return Path(found).parent if found else None


class Postgres:
    """A server with a password, running inside a `with` block; as another user where this is root.

    Args:
        bin_folder: of its programs.
        folder: for its files, which need not be there.
        password: of its user `study`.
    """

    def __init__(self, bin_folder: Path, folder: Path, password: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.bin_folder, self.folder, self.password = bin_folder, folder, password
        self._as: dict[str, Any] = {}
        folder.mkdir()
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            os.chown(folder, owner.pw_uid, owner.pw_gid)

    def uri(self, database: str) -> str:
        """Address of a database, without the password."""
        return f"postgresql://study@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> Postgres:
        with tempfile.NamedTemporaryFile("w") as secret:
            secret.write(self.password)
            secret.flush()
            Path(secret.name).chmod(0o644)
            self._do("initdb", "-D", "data", "-U", "study", "-A", "scram-sha-256", "-N",
                     f"--pwfile={secret.name}")  # fmt: skip
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it answers."""
        options = ("-p", str(self.port), "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.bin_folder / "postgres", "-D", "data", *options],
                cwd=self.folder, stdout=log, stderr=log, **self._as
            )  # fmt: skip
        for _ in range(60):
            if subprocess.run(self._command("pg_isready"), stdout=subprocess.DEVNULL).returncode:
                time.sleep(0.5)
            else:
                return
        raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        """End it, and whoever is connected."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def create(self, database: str) -> str:
        """Make an empty database; returns its address."""
        environment = os.environ | {"PGPASSWORD": self.password}
        subprocess.run([*self._command("createdb"), database], env=environment, check=True)
        return self.uri(database)

    def _command(self, program: str) -> list[str]:
        place = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "study")
        return [str(self.bin_folder / program), *place]

    def _do(self, program: str, *arguments: str) -> None:
        command = [self.bin_folder / program, *arguments]
        subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, check=True, **self._as)


class User:
    """Whoever runs commands in a folder; remembers what did not go as it should.

    Args:
        folder: with a home, a folder of temporary files and the space.
        search: of all that the commands print.
    """

    def __init__(self, folder: Path, search: Search) -> None:
        self.folder, self.search, self.problems = folder, search, list[str]()
        for name in ("home", "tmp", "elsewhere"):
            (folder / name).mkdir(parents=True)
        (folder / "elsewhere" / "space.yaml").write_text(SPACE)

    def run(self, name: str, *arguments: str, expected: int = 0, **variables: str) -> str:
        """Run a module's command beside the results; returns what it printed."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "MLFLOW"))}
        environment |= {"HOME": f"{self.folder}/home", "TMPDIR": f"{self.folder}/tmp"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", name, *arguments], cwd=self.folder / "elsewhere",
            env=environment | variables, capture_output=True, text=True, timeout=400, check=False
        )  # fmt: skip
        printed = done.stdout + done.stderr
        self.search.text(f"terminal of {name}", printed.encode())
        took = time.monotonic() - began
        sys.stdout.write(f"  {took:5.1f} s  exit {done.returncode}  {name} {arguments[0]}\n")
        self.check(done.returncode == expected and "Traceback" not in printed, name, printed)
        return printed

    def check(self, holds: bool, what: str, why: str = "") -> None:  # noqa: FBT001
        """Remember what does not hold."""
        if not holds:
            self.problems.append(f"{what}: {why[-1500:]}")

    def study(self, name: str, uri: str, **variables: str) -> Path:
        """Run the study under a name; returns its folder."""
        out = self.folder / "runs"
        chosen = ("--space", "space.yaml", "--out", str(out), "--name", name)
        printed = self.run("study.run", *chosen, "--tracking-uri", uri, **variables)
        self.check("Report:" in printed and "failed" not in printed, f"report of {name}", printed)
        return out / "studies" / name


def points(study: Path) -> set[tuple[Any, ...]]:
    """Key, stage, epoch, metric and value of each point of a study's exported tables."""
    columns = ("key", "stage", "epoch", "metric", "value")
    table = pq.read_table(study / "tables" / "curves.parquet")
    return set(zip(*(table[name].to_pylist() for name in columns), strict=True))


def through_server(user: User, server: Postgres, password: str) -> Path:
    """Record by way of an MLflow server on Postgres that wants a password itself."""
    os.environ["PGPASSWORD"] = server.password
    folder = user.folder.with_name("server")
    folder.mkdir()
    with MlflowServer(folder / "unused.db", server.create("served")) as mlflow:
        del os.environ["PGPASSWORD"]
        door = gate(mlflow.address, password)
        given = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": password}
        uri = f"http://127.0.0.1:{door.server_port}"
        study = user.study("served", uri, **given)
        user.run("analysis.export", str(study), **given)
        door.shutdown()
    kept = [path.name for path in (folder / "artifacts").rglob("*") if path.is_file()]
    user.check("report.html" in kept and "MLmodel" in kept, "the server's artifacts", str(kept))
    return study


def straight(user: User, server: Postgres) -> Path:
    """Record to a database itself; read it with the password of `~/.pgpass` alone."""
    uri, given = server.create("direct"), {"PGPASSWORD": server.password}
    study = user.study("direct", uri, **given)
    user.check(uri in (study / "study.json").read_text(), "address in study.json")
    with _password_file(user, server):
        user.run("study.status", str(study))
        user.run("analysis.export", str(study))
        user.run("analysis.report", str(study), "--log")
        user.run("study.predict", str(study), "--log")
        user.run("study.doctor", "--tracking-uri", uri, "--out", str(study.parent.parent))
        again = user.study("direct", uri)
    kept = [path.name for path in (user.folder / "runs" / "artifacts").rglob("*")]
    user.check("report.html" in kept and "MLmodel" in kept, "the study's artifacts", str(kept))
    strays = [str(path) for path in user.folder.rglob("mlruns")]
    user.check(not strays, "artifacts elsewhere", str(strays))
    return again


@contextmanager
def _password_file(user: User, server: Postgres) -> Iterator[None]:
    file = user.folder / "home" / ".pgpass"
    file.touch(mode=0o600)
    file.write_text(f"127.0.0.1:{server.port}:*:study:{server.password}\n")
    yield
    file.unlink()


def refusals(user: User, server: Postgres, study: Path) -> None:
    """A wrong password and a server that is down are one line each, within seconds."""
    for why, variables in (("password authentication failed", {"PGPASSWORD": "wrong"}),
                           ("no password supplied", {})):  # fmt: skip
        printed = user.run("analysis.export", str(study), expected=2, **variables)
        user.check(why in printed and len(printed.splitlines()) == 1, why, printed)
    server.stop()
    options = ("--space", "space.yaml", "--out", str(user.folder / "runs"), "--name", "down")
    printed = user.run("study.run", *options, "--tracking-uri", server.uri("direct"), expected=2)
    user.check("Connection refused" in printed, "a server that is down", printed)
    server.start()


def outage(user: User, server: Postgres) -> None:
    """Epochs that are reported while Postgres is down follow when it is back, none twice."""
    os.environ["PGPASSWORD"] = server.password
    uri, work = server.create("outage"), a_trial()
    tracker = opened(uri, "outage", user.folder / "outage")
    tracker.started(work, 0)
    tracker.recorded(work, record(1))
    server.stop()
    for epoch in range(2, 6):
        tracker.recorded(work, record(epoch))
    time.sleep(3)
    server.start()
    tracker.ended(work, JobResult("stopped", "early"))
    user.check(tracker.close("FINISHED"), "records after an outage", tracker.problem)
    run = runs(uri, "outage")["trial"]
    logged = MlflowClient(uri).get_metric_history(run.info.run_id, "val/force_rmse")
    steps = sorted(point.step for point in logged)
    user.check(steps == [1, 2, 3, 4, 5] and run.info.status == "FINISHED", "points", str(steps))
    del os.environ["PGPASSWORD"]


def first_at_once(user: User, server: Postgres, count: int = 3) -> None:
    """Several studies may be the first in an empty database."""
    uri = server.create("first")
    code = f"from study.tracking.mlflow_db import require_reachable as r; r({uri!r})"
    environment = os.environ | {"PGPASSWORD": server.password}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
        for _ in range(count)
    ]
    for each in started:
        _, errors = each.communicate()
        user.check(each.returncode == 0, "first in a database", errors.decode())


def main() -> int:
    """Run all of it, and print what does not hold."""
    argparse.ArgumentParser(prog="python -m tests.postgres", description=__doc__).parse_args()
    found = programs()
    if found is None or find_spec("psycopg") is None:
        sys.stdout.write("not checked: needs Postgres' server programs and psycopg\n")
        return os.EX_UNAVAILABLE
    known = {name: secrets.token_hex(20) for name in ("database", "server")}
    search = Search(known)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="p") as temporary:
        place = Path(temporary)
        place.chmod(0o755)
        user = User(place / "user", search)
        with Postgres(found, place / "postgres", known["database"]) as server:
            first_at_once(user, server)
            served = through_server(user, server, known["server"])
            direct = straight(user, server)
            user.check(points(served) == points(direct) != set(), "points differ")
            refusals(user, server, direct)
            outage(user, server)
        search.folder(place)
    return search.conclude(user.problems)


if __name__ == "__main__":
    sys.exit(main())
