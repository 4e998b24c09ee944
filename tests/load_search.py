"""What a search of a thousand trials costs besides its training: proposals, driver, report.

All is real but the training: `python -m study.run`, Ray, Optuna, ASHA, MLflow, the report. Errors
follow a smooth function of the settings, with noise.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from study.core.atomic_io import write_hashed
from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, save_outcome
from study.space.trial import Trial

EPOCHS = 9
MIB = 2**20
Figure = tuple[str, float, float]
"""What, measured, at most."""

SPACE = f"""\
question: What does a search of many trials cost?
seeds: [0]
search: {{trials: COUNT, sampler: tpe, repeat_best: 0}}
early_stopping: {{grace_epochs: 1, reduction_factor: 3}}
resources: {{cpus: 1}}
trial:
  dataset: {{name: tip3p_water, molecules: 8, trajectories: 3, frames: 2}}
  model: {{name: egnn, hidden: 8, layers: {{integer: [1, 4]}}}}
  pretrain: null
  finetune:
    task: {{name: energy_forces}}
    epochs: {EPOCHS}
    batch_size: 2
    lr: {{loguniform: [1e-5, 1e-2]}}
    weight_decay: {{loguniform: [1e-6, 1e-2]}}
    min_lr: 1e-7
profiles: {{quick: }}
"""


def search(root: Path, count: int) -> list[Figure]:
    """Of a search from its first proposal to its report."""
    space = root / "load.yaml"
    space.write_text(SPACE.replace("COUNT", str(count)))
    began = time.monotonic()
    run = psutil.Popen(
        [
            sys.executable,
            "-m",
            "tests.load_search",
            "--space",
            str(space),
            "--out",
            str(root / "r"),
        ],
        stdout=subprocess.DEVNULL,
    )
    ends, memory = _watched(run, root / "r", count)
    seconds = time.monotonic() - began
    assert run.returncode == 0, run.returncode
    tenth = max(1, count // 10)
    first, last = ends[2 * tenth] - ends[tenth], ends[-1] - ends[-1 - tenth]
    (study,) = (root / "r" / "studies").iterdir()
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "analysis.report", str(study)], check=True, stdout=-3)
    pages = [path.stat().st_size for path in study.rglob("*.html")]
    return [
        ("seconds per trial", seconds / count, 0.3),
        ("last tenth against the second", last / first, 1.5),
        ("driver's growth, MB", (memory[-1] - memory[tenth]) / MIB, 100),
        ("seconds of the report", time.monotonic() - began, 60),
        ("largest page of the report, MB", max(pages) / 1e6, 5),
        ("the whole report, MB", sum(pages) / 1e6, math.inf),
    ]


def _watched(run: psutil.Popen, root: Path, count: int) -> tuple[list[float], list[int]]:
    """When trials ended, and the memory of the driver then, by its journal."""
    ends, memory = list[float](), list[int]()
    while run.poll() is None:
        over = sum(
            path.read_bytes().count(b'"event": "ended"')
            for path in root.glob("studies/*/journal.jsonl")
        )
        now, held = time.monotonic(), _memory(run)
        ends += [now] * (over - len(ends))
        memory += [held] * (over - len(memory))
        time.sleep(0.2)
    assert len(ends) == len(memory)
    return ends + [time.monotonic()] * (count - len(ends)), memory


def _memory(run: psutil.Popen) -> int:
    try:
        return int(run.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def idle(config: dict[str, Any], root: str, *_: Any, **__: Any) -> None:
    """Stands for `study.driver.worker.run_work`: everything but training."""
    from ray.tune import report

    job = Job.from_json(config["work"])
    history = [_record(job.trial, epoch) for epoch in range(1, EPOCHS + 1)]
    for each in history:
        report({"record": json.dumps(asdict(each)), "warnings": []})
    folder, error = job.folder(Path(root)), history[-1].metrics["val_force_rmse"]
    names = ("energy_rmse", "energy_mae", "force_rmse", "force_mae")
    metrics = {f"test_{name}": 1.02 * error for name in names}
    metrics |= {f"trivial_{name}": 1.0 for name in names}
    result = JobResult("completed", metrics=metrics | {"seconds": 9.0, "cpu_seconds": 9.0})
    save_outcome(
        folder, Outcome(result, history, write_hashed(folder, "weights", ".safetensors", bytes(99)))
    )
    report({"result": json.dumps(asdict(result)), "warnings": []})


def _record(trial: Trial, epoch: int) -> EpochRecord:
    noise = random.Random(f"{trial.finetune.lr} {epoch}").gauss(0, 0.005)
    away = math.log10(trial.finetune.lr / 1e-3) ** 2 + (trial.model.layers - 3) ** 2 / 9
    error = 0.1 + 0.05 * away + 0.5 / epoch + noise
    names = ("val_force_rmse", "val_force_mae", "val_energy_rmse", "val_energy_mae", "train_loss")
    metrics = dict.fromkeys(names, error) | {"lr": trial.finetune.lr, "grad_norm": 1.0}
    return EpochRecord(
        "finetune", epoch, metrics | {"seconds": 1.0, "cpu_seconds": 1.0, "flops": 1e9}
    )


def main() -> int:
    """Run a study whose trials train nothing."""
    from study import run
    from study.driver.session import Session

    run_plan = Session.run_plan

    def idly(self: Session, *arguments: Any) -> None:
        # Ray must not be imported before it is known which cluster it joins.
        from study.driver import ray_runner
        from tests import load_search

        ray_runner.run_work = load_search.idle
        run_plan(self, *arguments)

    Session.run_plan = idly  # type: ignore[method-assign]
    return run.main()


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    sys.exit(main())
