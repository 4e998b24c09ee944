"""Kill a real study at random moments, run it again, and check that nothing is lost or doubled.

`python -m tests.chaos --kills 50 --seed 0` simulates, trains and records with OpenMM, Ray and
MLflow. Each study is killed up to three times, its driver or its workers, and then left to finish.
The seed repeats the same moments, as far as the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.faults.invariants import check_database, check_invariants

SPACE = """\
question: Does anything get lost?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 4, frames: 6}
  model: {name: egnn, hidden: 8, layers: 2}
  pretrain:
    task: {name: masking, masking_ratio: {choice: [0.5]}}
    epochs: 5
    batch_size: 6
  finetune:
    task: {name: energy_forces}
    epochs: 30
    batch_size: 3
profiles: {quick: }
"""
MOST = 3
"""Kills per study."""
PATIENCE = 30.0
"""Seconds in which all processes of a killed driver must be gone."""
DRIVER, WORKER = "driver", "worker"


class Study:
    """One study in a folder of its own.

    Args:
        folder: for its space and its results.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.root, self.space = folder / "runs", folder / "chaos.yaml"
        self.space.write_text(SPACE)
        self.log = folder / "log.txt"

    def start(self) -> psutil.Popen:
        """The command, as a user would start it."""
        with self.log.open("ab") as log:
            return psutil.Popen(
                [sys.executable, "-m", "study.run", "--space", self.space, "--out", self.root],
                stdout=log,
                stderr=log,
                env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"},
            )

    def finish(self) -> list[str]:
        """What is wrong after a run that nobody disturbs."""
        code = self.start().wait()
        return [f"exit code {code}: {self.log.read_text()[-500:]}"] if code else []


def killed(study: Study, target: str, after: float) -> list[str]:
    """Kill the driver, or all workers at once, some seconds after the start."""
    driver = study.start()
    with contextlib.suppress(psutil.TimeoutExpired):
        driver.wait(after)
        return []
    family = driver.children(recursive=True)
    if target == DRIVER:
        driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs(family, PATIENCE)
        left = [process for process in alive if process.is_running()]
        for process in left:
            process.kill()
        return [f"{len(left)} processes left over"] if left else []
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ImplicitFunc" in " ".join(process.cmdline()):
                process.kill()
    code = driver.wait()
    return [f"exit code {code} after its workers were killed"] if code else []


def main() -> int:
    """Kill, check, and exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=[DRIVER, WORKER], default=[DRIVER, WORKER])
    chosen = parser.parse_args()
    rng, wrong, left = random.Random(chosen.seed), 0, chosen.kills
    with tempfile.TemporaryDirectory() as folder:
        usual = Study(Path(folder) / "undisturbed")
        started = time.monotonic()
        problems = usual.finish() + _broken(usual, usual)
        seconds = time.monotonic() - started
        _say(f"undisturbed: {seconds:.0f} s", problems)
        while left and not problems:
            study = Study(Path(folder) / f"after-{left}")
            ledger, found = [], list[str]()
            for _ in range(min(left, rng.randint(1, MOST))):
                target, after = rng.choice(chosen.targets), rng.uniform(0, seconds)
                ledger.append(f"{target} after {after:.1f} s")
                found += killed(study, target, after)
                left -= 1
            found += study.finish() + _broken(study, usual)
            wrong += bool(found)
            _say(f"seed {chosen.seed}, killed {', '.join(ledger)}", found)
    return int(wrong > 0 or bool(problems))


def _broken(study: Study, usual: Study) -> list[str]:
    return check_invariants(study.root, usual.root) + check_database(study.root)


def _say(what: str, problems: list[str]) -> None:
    lines = [f"{what}: {'wrong' if problems else 'all invariants hold'}", *problems]
    sys.stdout.write("\n  ".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
