"""A study as its user sees it: a command, its output, its exit code, its folder of results."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.processes import MARK, living
from tests.faults.cluster import LocalCluster

SPACE = """\
question: Does anything get lost?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 3, frames: 3}
  model: {name: egnn, hidden: 8, layers: 2}
  pretrain:
    task: {name: masking, masking_ratio: {choice: [0.5, 0.9]}}
    epochs: 20
    batch_size: 2
  finetune:
    task: {name: energy_forces}
    epochs: 40
    batch_size: 2
    lr: {choice: [1e-3, 2e-3]}
profiles:
  grid:
  search:
    search: {trials: 6, sampler: tpe, repeat_best: 0}
    early_stopping: {grace_epochs: 3, reduction_factor: 2}
"""
"""All that the search may propose is an arm of the grid, too: the grid tells how it must end."""

LONGEST = 600.0
"""Seconds in which a study must end, on a machine that is busy."""


class Place:
    """A results folder, with a home and a folder of temporary files that nobody else uses.

    Args:
        folder: for all of it, made here.
        data: of another results folder, copied; none to simulate.
    """

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        self.folder, self.out = folder, folder / "runs"
        self.home, self.tmp, self.space = folder / "h", folder / "t", folder / "chaos.yaml"
        for new in (folder, self.home, self.tmp):
            new.mkdir()
        self.space.write_text(SPACE)
        self.mark = secrets.token_hex(8)
        if data is not None:
            shutil.copytree(data, self.out / "data")

    @property
    def environment(self) -> dict[str, str]:
        """What its processes see."""
        own = {"HOME": str(self.home), "TMPDIR": str(self.tmp)}
        return os.environ | own | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def left_over(self) -> list[str]:
        """Processes and temporary files that are there although nothing runs."""
        names = [f"process: {' '.join(each.cmdline())[:90]}" for each in living(self.mark)]
        files = [*self.tmp.rglob("*"), self.home / ".ray"]
        for folder in (self.out, self.home):
            for pattern in ("*.tmp", "*.partial", "*.part", ".*.tmp", "*-journal"):
                files += folder.rglob(pattern)
        return names + [f"file: {path}" for path in files if os.path.lexists(path)]


class Study:
    """The command of one profile.

    Args:
        place: where it runs.
        profile: of the space.
        options: more of the command line.
        cluster: to run on; this machine without it.
    """

    def __init__(
        self, place: Place, profile: str, *options: str, cluster: LocalCluster | None = None
    ) -> None:
        self.place, self.profile, self.cluster = place, profile, cluster
        self.mark = f"{place.mark}-{profile}"
        self.options = (*options, *(["--address", cluster.address] if cluster else []))
        self.runs = 0
        self.driver: subprocess.Popen[bytes] | None = None
        self.began = 0.0

    @property
    def tracking_uri(self) -> str:
        """Where its records are."""
        if "--tracking-uri" in self.options:
            return self.options[self.options.index("--tracking-uri") + 1]
        return f"sqlite:///{self.place.out}/mlflow.db"

    @property
    def folder(self) -> Path:
        """Of the study, below the results."""
        return self.place.out / "studies" / f"chaos-{self.profile}"

    @property
    def log(self) -> Path:
        """What the latest run has said."""
        return self.place.folder / f"{self.profile}-{self.runs}.log"

    def start(self) -> subprocess.Popen[bytes]:
        """Run the command, unless it runs; it leads a process group of its own."""
        if self.driver is None:
            self.runs, self.began = self.runs + 1, time.monotonic()
            command = [sys.executable, "-m", "study.run", "--space", str(self.place.space)]
            command += ["--profile", self.profile, "--out", str(self.place.out), *self.options]
            with self.log.open("wb") as log:
                self.driver = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment(),
                    start_new_session=True,
                )
        return self.driver

    def _environment(self) -> dict[str, str]:
        """What its processes see; the mark tells them from all others."""
        shared = self.cluster.environment if self.cluster else {}
        return shared | self.place.environment | {MARK: self.mark}

    def ended(self, seconds: float) -> int | None:
        """Wait so long for its exit code; none if it still runs."""
        assert self.driver is not None
        try:
            code = self.driver.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.driver = None
        return code

    def finish(self) -> list[str]:
        """Run it undisturbed; what is wrong with that."""
        driver = self.start()
        code = self.ended(LONGEST)
        if code is None:
            driver.kill()
            self.ended(LONGEST)
        problems = [] if code == 0 else [f"exit code {code}: {self.said()}"]
        return problems + self.tracebacks()

    def tracebacks(self) -> list[str]:
        """Those that its latest run has shown: a user should see none."""
        text = self.log.read_text(errors="replace")
        return [f"a traceback: {text[-1500:]}"] if "Traceback" in text else []

    def said(self) -> str:
        """The lines of the latest run that are not of every study, or the last one."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        telling = [line.strip() for line in lines if any(word in line for word in TELLING)]
        if not telling and any(line.startswith("Report: ") for line in lines):
            return "finished"
        return " | ".join(telling or lines[-1:])


TELLING = (
    "died",
    "damaged",
    "again",
    "rerun",
    "abort",
    "failed",
    "did not",
    "stopping",
    "is running",
)
"""Words of lines that tell of something unusual."""
