"""Run studies on data in S3: a file of a bucket that a local server (moto) stands in for.

`python -m tests.s3` needs `pip install s3fs moto[server]`, else it exits with 69. A small study on
`s3://…` must have the numbers of the same one on the file here, fetch it once, and tell when it has
changed; a large object must come in bounded memory; a missing one and missing credentials must be
one line, exit code 2, and nothing written. Keys must be in no file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from study.datasets.readers.ase_file import write
from tests.conftest import CUBE, make_water
from tests.secrets import Search

SPACE = """\
question: Are data in a bucket the same?
seeds: [0, 1]
trial:
  dataset: {name: ase_file, path: PATH}
  split: {by: frame}
  model: {name: egnn, hidden: 8, layers: 2}
  pretrain: null
  finetune: {task: {name: energy_forces}, epochs: 2, batch_size: 2}
"""

LARGE = 400 * 2**20
"""Bytes of the large object."""

MOST_MEMORY = 250 * 2**20
"""Bytes by which fetching it may raise the peak of a process: blocks in flight, and libraries."""


class Bucket:
    """A bucket of a server on this machine, which wants keys; inside a `with` block."""

    def __enter__(self) -> Bucket:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        self.server.start()
        host, port = self.server.get_host_and_port()
        self.address = f"http://{host}:{port}"
        self.keys = {"AWS_ACCESS_KEY_ID": f"A{secrets.token_hex(9)}"}
        self.keys |= {"AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
        self.client: Any = self._client()
        self.client.create_bucket(Bucket="bucket")
        return self

    def _client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.address,
            region_name="us-east-1",
            aws_access_key_id=self.keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.keys["AWS_SECRET_ACCESS_KEY"],
        )

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def put(self, file: Path, name: str) -> str:
        """Put a file there; returns its address."""
        self.client.upload_file(str(file), "bucket", name)
        return f"s3://bucket/{name}"


class User:
    """Whoever runs commands beside a bucket; remembers what did not go as it should.

    Args:
        folder: for all of it.
        bucket: where the data are.
        search: for keys in all that is printed.
    """

    def __init__(self, folder: Path, bucket: Bucket, search: Search) -> None:
        self.folder, self.bucket, self.search = folder, bucket, search
        self.problems: list[str] = []
        (folder / "home").mkdir()

    def run(self, *arguments: str, expected: int = 0, keys: bool = True) -> str:
        """Run a module's command; returns what it printed."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        environment |= {"HOME": str(self.folder / "home"), "AWS_EC2_METADATA_DISABLED": "true"}
        environment |= {"AWS_ENDPOINT_URL": self.bucket.address, "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=environment | (self.bucket.keys if keys else {}),
            capture_output=True,
            text=True,
            check=False,
        )
        printed = done.stdout + done.stderr
        self.search.text("terminal", printed.encode())
        took = time.monotonic() - began
        sys.stdout.write(f"  {took:5.1f} s  exit {done.returncode}  {' '.join(arguments)[:70]}\n")
        self.check(
            done.returncode == expected and "Traceback" not in printed, arguments[0], printed
        )
        return printed

    def check(self, holds: bool, what: str, why: str = "") -> None:  # noqa: FBT001
        """Remember what does not hold."""
        if not holds:
            self.problems.append(f"{what}: {why[-1500:]}")

    def study(self, path: str, name: str, out: str = "runs", expected: int = 0) -> str:
        """Run the study on a file; returns what it printed."""
        space = self.folder / f"{name}.yaml"
        space.write_text(SPACE.replace("PATH", path))
        return self.run("study.run", "--space", str(space), "--out", out, "--name", name,
                        "--no-report", expected=expected)  # fmt: skip


def errors(study: Path) -> list[Any]:
    """Test errors of a study's trials, by their key."""
    lines = map(json.loads, (study / "journal.jsonl").read_text().splitlines())
    ended = [each for each in lines if each["event"] == "ended"]
    return sorted((each["key"], each["result"]["metrics"]["test_force_rmse"]) for each in ended)


def same_numbers(user: User, file: Path) -> None:
    """A study on a bucket's file has the numbers of one on the file here, and fetches it once."""
    address = user.bucket.put(file, "water.extxyz")
    user.study(address, "there")
    (copy,) = (user.folder / "runs/downloads").rglob("*.extxyz")
    first = copy.stat().st_mtime_ns
    printed = user.study(str(file), "here", out="local")
    studies = (user.folder / "runs/studies/there", user.folder / "local/studies/here")
    user.check(errors(studies[0]) == errors(studies[1]) != [], "numbers differ", printed)
    user.study(address, "there")
    user.check(copy.stat().st_mtime_ns == first, "fetched twice")
    recorded = json.loads((studies[0] / "study.json").read_text())
    user.check(address in json.dumps(recorded), "address in study.json")
    user.run("analysis.export", "runs/studies/there")
    table = pq.read_table(studies[0] / "tables/trials.parquet")
    user.check(table["dataset.path"].to_pylist() == [address] * 2, "address in tables")


def changed(user: User, file: Path) -> None:
    """Another content at the same address is refused, as another file here is."""
    write(make_water(CUBE, 15, seed=3), file.with_name("other.extxyz"))
    address = user.bucket.put(file.with_name("other.extxyz"), "water.extxyz")
    printed = user.study(address, "there", expected=2)
    user.check("began with the data set" in printed, "a changed object", printed)
    user.bucket.put(file, "water.extxyz")
    user.study(address, "there")


def refusals(user: User, address: str) -> None:
    """What is wrong is one line, and nothing is written."""
    run = ("study.run", "--space", "masking_ratio", "--out", "nowhere", "--data")
    for said, arguments, keys in (
        ("no such file", (*run, "s3://bucket/ice.extxyz"), True),
        ("NoSuchBucket", (*run, "s3://others/water.extxyz"), True),
        ("but is a folder", (*run, "s3://bucket"), True),
        ("credentials", (*run, address), False),
        ("must be a path here", (*run[:3], "--out", "s3://bucket/runs"), True),
    ):
        printed = user.run(*arguments, expected=2, keys=keys)
        *_, line = printed.splitlines()
        sys.stdout.write(f"  {line}\n")
        user.check(said in line, said, printed)
    user.check(not (user.folder / "nowhere").exists(), "something was written")
    printed = user.run("study.data", "inspect", address)
    user.check("frames" in printed, "inspect", printed)


FETCH = """
import sys
from pathlib import Path
from study.datasets.sources.remote import local
import s3fs
def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
before = peak()
file = local(sys.argv[1], Path("large"))
print(file.stat().st_size, peak() - before)
"""


def large(user: User) -> None:
    """A large object comes in bounded memory."""
    file = user.folder / "large.bin"
    rng = np.random.default_rng(0)
    with file.open("wb") as opened:
        for _ in range(LARGE // 2**20):
            opened.write(rng.bytes(2**20))
    address = user.bucket.put(file, "large.bin")
    (user.folder / "fetch.py").write_text(FETCH)
    size, added = map(int, user.run("fetch", address).split())
    user.check(size == LARGE, "size", str(size))
    user.check(added <= MOST_MEMORY, "memory", f"{added / 2**20:.0f} MB")
    sys.stdout.write(f"  {size / 2**20:.0f} MB fetched with {added / 2**20:.0f} MB of memory\n")


def main() -> int:
    """Run all of it, and print what does not hold."""
    argparse.ArgumentParser(prog="python -m tests.s3", description=__doc__).parse_args()
    if any(find_spec(name) is None for name in ("s3fs", "moto", "boto3")):
        sys.stdout.write("not checked: needs s3fs and moto[server]\n")
        return os.EX_UNAVAILABLE
    with tempfile.TemporaryDirectory() as temporary, Bucket() as bucket:
        search = Search(dict(bucket.keys))
        user = User(Path(temporary), bucket, search)
        file = user.folder / "water.extxyz"
        write(make_water(CUBE, 15, seed=0), file)
        same_numbers(user, file)
        changed(user, file)
        refusals(user, "s3://bucket/water.extxyz")
        large(user)
        search.folder(user.folder)
    return search.conclude(user.problems)


if __name__ == "__main__":
    sys.exit(main())
