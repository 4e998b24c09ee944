"""The README's jobs for SLURM, with programs that only write down what they are told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from study.datasets.frames import Frames
from study.datasets.readers.ase_file import write
from tests.readme import example

SRUN = """\
told="srun"
while case "$1" in -*) true ;; *) false ;; esac; do
    case "$1" in
        --nodes=* | --ntasks=* | --cpus-per-task=*) told="$told $1" ;;
        -w) told="$told on $2"; shift ;;
        *) echo "srun: unrecognized option $1" >&2; exit 1 ;;
    esac
    shift
done
echo "$told" >> told
exec "$@"
"""
"""Runs a step, wherever it should be, on this machine."""

SCONTROL = """\
case "$1" in
    show) printf '%s\\n' 127.0.0.1 second ;;
    *) echo scontrol "$@" >> told ;;
esac
"""

STUDY = """\
trap 'exit 75' USR1
[ -z "$RAY_AUTH_TOKEN" ] || until [ "$(grep -c token told)" = 2 ]; do sleep 0.05; done
echo "$@" >> told
[ -z "$CODE" ] || exit "$CODE"
while true; do sleep 0.1; done
"""
"""Ends with $CODE, or at SLURM's warning; over nodes it begins when Ray runs on both."""

RAY = """\
echo "ray $*" >> told
echo "token $RAY_AUTH_TOKEN" >> told
port=$(expr "$*" : '.*--port=\\([0-9]*\\)')
[ -z "$port" ] || exec PYTHON -c "
import socket, time
listening = socket.create_server(('127.0.0.1', $port))
time.sleep(60)"
exec sleep 60
"""


def program(folder: Path, name: str, body: str) -> None:
    """One that a job finds first."""
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """`srun` and `scontrol`, and the jobs."""
    for name, body in {"srun": SRUN, "scontrol": SCONTROL}.items():
        program(tmp_path, name, body)
    for name in ("job.sh", "nodes.sh"):
        (tmp_path / name).write_text(example(name))
    return tmp_path


@pytest.fixture
def programs(slurm: Path) -> Path:
    """The same, with a study and a Ray that only write down what they are told."""
    program(slurm, "python", STUDY)
    program(slurm, "ray", RAY.replace("PYTHON", sys.executable))
    return slurm


def submit(folder: Path, name: str, *options: str, **variables: str) -> subprocess.Popen[bytes]:
    """Run a job as SLURM does on its first node."""
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": free_job(),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
    }
    return subprocess.Popen(["bash", name, *options], cwd=folder, env=environment | variables)


def free_job() -> str:
    """Number of a job whose port is free."""
    for number in range(os.getpid() % 10000, 20000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20000 + number % 10000)):
                return str(number)
    raise RuntimeError("no free port")


def wait_for(condition: Callable[[], object], job: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("code", [0, 1, 2, 75, 130])
def test_a_job_queues_again_exactly_if_its_study_is_not_whole(programs: Path, code: int) -> None:
    options = ("--space", "two words.yaml")
    job = submit(programs, "job.sh", *options, CODE=str(code), SLURM_JOB_ID="17")
    assert job.wait(20) == code
    step, study, *rest = (programs / "told").read_text().splitlines()
    assert step == "srun"
    assert study == "-m study.run --profile paper --out /shared/runs --space two words.yaml"
    assert rest == (["scontrol requeue 17"] if code == 75 else [])


@pytest.mark.parametrize(("code", "warned"), [("0", False), ("75", False), ("", True)])
def test_a_job_over_nodes_starts_ray_on_each_and_hands_the_warning_on(
    programs: Path, code: str, *, warned: bool
) -> None:
    told, ray = programs / "told", list[psutil.Process]()
    told.touch()
    job = submit(programs, "nodes.sh", "--space", "table1", CODE=code)
    if warned:
        wait_for(lambda: "study.run" in told.read_text(), job, 20)
        ray = psutil.Process(job.pid).children(recursive=True)
        job.send_signal(signal.SIGUSR1)
    assert job.wait(20) == int(code or 75)
    assert_started(told.read_text().splitlines())
    assert ("scontrol requeue" in told.read_text()) == (code != "0")
    assert not psutil.wait_procs(ray, timeout=10)[1]


def assert_started(told: list[str]) -> None:
    """A head and another node, with one token and the head's address, and the study on it."""
    (study,) = (line for line in told if "study.run" in line)
    *_, address, _, space = study.split()
    assert space == "table1"
    port = address.removeprefix("127.0.0.1:")
    nodes = [line for line in told if line.startswith("ray ")]
    assert any(f"--head --port={port}" in line for line in nodes)
    assert any(f"--address={address}" in line for line in nodes)
    assert all("start --block --num-cpus=1 " in line for line in nodes)
    steps = {line for line in told if line.startswith("srun")}
    what = "srun --nodes=1 --ntasks=1 --cpus-per-task=1 on"
    assert steps == {f"{what} 127.0.0.1", f"{what} second"}
    tokens = [line for line in told if line.startswith("token")]
    assert len(tokens) == 2
    assert len({*tokens}) == 1
    assert len(tokens[0].split()[1]) == 64


SPACE = """\
question: Does a study over two nodes resume?
seeds: [0, 1, 2]
trial:
  dataset: {name: ase_file, path: water.extxyz}
  split: {by: frame}
  model: {name: egnn, hidden: 8, layers: 2, cutoff: 3.4}
  pretrain: null
  finetune: {task: {name: energy_forces}, epochs: 150, batch_size: 2}
profiles: {paper: }
"""


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A short name, as Ray's sockets need."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def named(folder: Path) -> list[list[str]]:
    """Command lines of processes that name a folder."""
    lines = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if any(str(folder) in word for word in line)]


@pytest.mark.long
def test_a_study_over_two_nodes_stops_at_the_warning_and_resumes(
    slurm: Path, water: Frames, tmp_path: Path, ray_folder: Path
) -> None:
    """With real Ray, whose two nodes are both on this machine."""
    write(water, tmp_path / "water.extxyz")
    (tmp_path / "two.yaml").write_text(SPACE)
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OUT": "runs"}
    variables |= {"RAY_TMPDIR": str(ray_folder), "HOME": str(tmp_path)}
    program(slurm, "ray", f'exec {shutil.which("ray")} "$@" --object-store-memory=80000000')
    work = tmp_path / "runs/work"
    codes = []
    for warned in (True, False):
        job = submit(slurm, "nodes.sh", "--space", "two.yaml", "--no-report", **variables)
        if warned:
            wait_for(lambda: len({*work.glob("trial-*/epoch-*")}) >= 4, job, 240)
            kept = {path.parent.name for path in work.glob("trial-*/epoch-*")}
            job.send_signal(signal.SIGUSR1)
        codes.append(job.wait(240))
        ended_by = time.monotonic() + 30
        while named(ray_folder):
            assert time.monotonic() < ended_by, named(ray_folder)
            time.sleep(0.1)
    assert codes == [75, 0]
    assert len(kept) == 2  # one on each node
    assert "scontrol requeue" in (slurm / "told").read_text()
    journal = (tmp_path / "runs/studies/two-paper/journal.jsonl").read_text().splitlines()
    ended = [each for line in journal if (each := json.loads(line)).get("event") == "ended"]
    assert [each["result"]["status"] for each in ended] == ["completed"] * 3
