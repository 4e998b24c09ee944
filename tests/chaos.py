"""Kill real studies at random moments, run them again, and check that nothing is lost or doubled.

`python -m tests.chaos --kills 50 --seed 0 --targets driver` simulates, trains and records with
OpenMM, Ray and MLflow. Each study is hit up to three times and then left to finish: its driver, a
worker, the second node of its cluster, or the driver by a signal that it heeds. Every hit is a
line of a ledger. The seed repeats the same moments, as far as the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from study.core.signals import EXIT_INTERRUPTED, EXIT_UNFINISHED
from tests.faults.cluster import LocalCluster
from tests.faults.invariants import check_database, check_invariants
from tests.processes import family

SPACE = """\
question: Does anything get lost?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 3, frames: 3}
  model: {name: egnn, hidden: 8, layers: 2}
  pretrain:
    task: {name: masking, masking_ratio: {choice: [0.5]}}
    epochs: 6
    batch_size: 2
  finetune:
    task: {name: energy_forces}
    epochs: 12
    batch_size: 2
profiles: {quick: }
"""
MOST = 3
"""Hits per study."""
PATIENCE = 120.0
"""Seconds in which all processes of a killed driver must be gone; on a busy machine two of Ray take
one."""
LONGEST = 240.0
"""Seconds in which a study must end."""
HEEDED = {"SIGINT": EXIT_INTERRUPTED, "SIGTERM": EXIT_INTERRUPTED, "SIGUSR1": EXIT_UNFINISHED}
"""Signals, and the exit code that each must give."""
TARGETS = ("driver", "worker", "node", *HEEDED)


@dataclass(frozen=True)
class Moment:
    """When to hit: some seconds after the start, or after an epoch of a kind of work.

    Args:
        seconds: after the start, or after the epoch.
        kind: of work, or none.
        epoch: of that work.
    """

    seconds: float
    kind: str = ""
    epoch: int = 0

    @classmethod
    def drawn(cls, rng: random.Random, longest: float) -> Moment:
        """Half of them anywhere, half of them while something trains."""
        if rng.random() < 0.5:
            return cls(rng.uniform(0, longest))
        kind, epochs = rng.choice([("pretrain", 6), ("trial", 12)])
        return cls(rng.uniform(0, 0.3), kind, rng.randrange(1, epochs))

    def has_come(self, root: Path) -> bool:
        """Whether the epoch is done."""
        return not self.kind or any(
            int(path.name.split("-")[1]) >= self.epoch
            for path in root.glob(f"work/{self.kind}-*/epoch-*")
        )

    def __str__(self) -> str:
        after = f"{self.kind} epoch {self.epoch} + " if self.kind else ""
        return f"{after}{self.seconds:.1f} s"


class Study:
    """One study in a folder of its own.

    Args:
        folder: for its space and its results.
        data: made before; none to make them.
        cluster: to run on; this machine without it.
    """

    def __init__(self, folder: Path, data: Path | None, cluster: LocalCluster | None) -> None:
        folder.mkdir()
        self.root, self.space, self.cluster = folder / "runs", folder / "chaos.yaml", cluster
        self.space.write_text(SPACE)
        self.log = folder / "log.txt"
        self.driver: psutil.Popen | None = None
        if data is not None:
            shutil.copytree(data, self.root / "data")

    def start(self) -> psutil.Popen:
        """The command, as a user would start it, unless it runs."""
        if self.driver is None:
            command = [sys.executable, "-m", "study.run", "--space", self.space, "--out", self.root]
            command += ["--no-report"]
            command += ["--address", self.cluster.address] if self.cluster else []
            base = self.cluster.environment if self.cluster else os.environ
            environment = base | {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
            with self.log.open("ab") as log:
                self.driver = psutil.Popen(command, stdout=log, stderr=log, env=environment)
        return self.driver

    def ended(self, patience: float) -> int | None:
        """Exit code of the command; none if it still runs."""
        assert self.driver is not None
        try:
            code = self.driver.wait(patience)
        except psutil.TimeoutExpired:
            return None
        self.driver = None
        return int(code)

    def finish(self) -> list[str]:
        """What is wrong after a run that nobody disturbs any more."""
        driver = self.start()
        code = self.ended(LONGEST)
        if code is None:
            driver.kill()
            self.ended(PATIENCE)
        log = self.log.read_text()
        problems = [] if code == 0 else [f"exit code {code}: {log[-800:]}"]
        return problems + (["a traceback: " + log[-3000:]] if "Traceback" in log else [])


def hit(study: Study, target: str, moment: Moment) -> list[str] | None:
    """Start the study, wait for the moment, hit; none if the study has ended before."""
    driver = study.start()
    deadline = time.monotonic() + LONGEST
    while not moment.has_come(study.root) and time.monotonic() < deadline:
        if study.ended(0.02) is not None:
            return None
    code = study.ended(moment.seconds)
    if code is not None:
        return [f"exit code {code}: {study.log.read_text()[-800:]}"] if code else None
    hits: dict[str, Callable[[Study, psutil.Popen], list[str] | None]] = {
        "driver": _kill_driver,
        "worker": _kill_worker,
        "node": _kill_node,
        **{name: partial(_signal, name) for name in HEEDED},
    }
    return hits[target](study, driver)


def _kill_driver(study: Study, driver: psutil.Popen) -> list[str]:
    hit = family(driver)
    driver.kill()
    study.ended(PATIENCE)
    return _left_over(hit)


def _left_over(processes: list[psutil.Process]) -> list[str]:
    _, alive = psutil.wait_procs(processes, PATIENCE)
    left = [" ".join(process.cmdline())[:100] for process in alive if process.is_running()]
    for process in alive:
        process.kill()
    return [f"left over: {command}" for command in left]


def _kill_worker(study: Study, driver: psutil.Popen) -> list[str] | None:
    """One of those that are there; none if there is none."""
    del study
    for process in family(driver):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ImplicitFunc" in " ".join(process.cmdline()):
                process.kill()
                return []
    return None


def _kill_node(study: Study, driver: psutil.Popen) -> list[str]:
    del driver
    assert study.cluster is not None
    study.cluster.kill_node()
    return []


def _signal(name: str, study: Study, driver: psutil.Popen) -> list[str]:
    number, deadline = signal.Signals[name], time.monotonic() + LONGEST
    while driver.poll() is None and not _heeds_signals(driver) and time.monotonic() < deadline:
        time.sleep(0.02)
    hit: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        hit = family(driver)
        driver.send_signal(number)
    code = study.ended(LONGEST)
    problems = _left_over(hit)
    # It may have been about to end anyway.
    if code not in (HEEDED[name], 0):
        problems.append(f"exit code {code} after {name}: {study.log.read_text()[-800:]}")
    return problems


def _heeds_signals(driver: psutil.Popen) -> bool:
    """Whether it has come so far; Python alone catches no SIGUSR1."""
    try:
        status = Path(f"/proc/{driver.pid}/status").read_text()
    except OSError:
        return True
    caught = re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return caught is None or bool(int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1)


class Ledger:
    """What was done and seen, a JSON line each, never changed.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, **facts: Any) -> None:
        """Add a line."""
        with self.path.open("a") as opened:
            opened.write(json.dumps({"at": time.strftime("%H:%M:%S")} | facts) + "\n")


def main() -> int:
    """Hit, check, and exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS[:2])
    parser.add_argument("--ledger", type=Path, default=Path("chaos.jsonl"))
    chosen = parser.parse_args()
    if "node" in chosen.targets and chosen.targets != ["node"]:
        parser.error("--targets node: the others need a Ray of their own; name it alone")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as leaving:
        cluster = leaving.enter_context(LocalCluster()) if "node" in chosen.targets else None
        return _hit_all(chosen, Path(folder), Ledger(chosen.ledger), cluster)


def _hit_all(
    chosen: argparse.Namespace, folder: Path, ledger: Ledger, cluster: LocalCluster | None
) -> int:
    rng = random.Random(f"{chosen.seed} {chosen.targets}")
    usual = Study(folder / "undisturbed", None, cluster)
    began = time.monotonic()
    problems = usual.finish() + _broken(usual, usual)
    longest = time.monotonic() - began
    ledger.note(seed=chosen.seed, undisturbed=longest, problems=problems)
    hits, wrong, studies = Counter[str](), int(bool(problems)), 0
    while hits.total() < chosen.kills and not problems:
        studies += 1
        data = usual.root / "data" if studies % 5 else None
        study, found = Study(folder / str(studies), data, cluster), list[str]()
        for _ in range(rng.randint(1, MOST)):
            target, moment = rng.choice(chosen.targets), Moment.drawn(rng, longest)
            seen = hit(study, target, moment)
            hits[target] += seen is not None
            found += seen or []
            ledger.note(
                seed=chosen.seed,
                study=studies,
                target=target,
                moment=str(moment),
                hit=seen is not None,
                problems=seen,
            )
        found += study.finish() + _broken(study, usual)
        wrong += bool(found)
        ledger.note(seed=chosen.seed, study=studies, ended=True, problems=found)
        if not found:
            shutil.rmtree(folder / str(studies))
        for problem in found:
            _say(f"seed {chosen.seed}, study {studies}: {problem}")
        _say(f"{studies} studies, hit {dict(hits)}, {wrong} with consequences")
    return int(wrong > 0)


def _broken(study: Study, usual: Study) -> list[str]:
    return check_invariants(study.root, usual.root) + check_database(study.root)


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
