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
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

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


@dataclass(frozen=True)
class Moment:
    """What a search has taken so far.

    Args:
        time: s.
        spent: processor time of the driver, s.
        memory: of the driver, bytes.
    """

    time: float
    spent: float
    memory: int


def search(root: Path, count: int) -> list[Figure]:
    """Of a search from its first proposal to its report."""
    space = root / "load.yaml"
    space.write_text(SPACE.replace("COUNT", str(count)))
    module = [sys.executable, "-m", "tests.load_search"]
    run = psutil.Popen(
        [*module, "--space", str(space), "--out", str(root / "r")], stdout=subprocess.DEVNULL
    )
    moments = _watched(run, root / "r", count)
    assert run.returncode == 0, run.returncode
    behind = time.monotonic() - moments[-1].time
    taken = [after.time - before.time for before, after in pairwise(moments)]
    (study,) = (root / "r" / "studies").iterdir()
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "analysis.report", str(study)], check=True, stdout=-3)
    pages = [path.stat().st_size for path in study.rglob("*.html")]
    return [
        ("seconds per trial", (moments[-1].time - moments[0].time) / count, 0.3),
        ("last tenth against the second", taken[-1] / taken[1], 1.5),
        ("driver's growth, MB", (moments[-1].memory - moments[1].memory) / MIB, 100),
        ("seconds from the last trial to the end", behind, math.inf),
        ("seconds of the report", time.monotonic() - began, 60),
        ("largest page of the report, MB", max(pages) / 1e6, 5),
        ("the whole report, MB", sum(pages) / 1e6, math.inf),
    ]


def _watched(run: psutil.Popen, root: Path, count: int) -> list[Moment]:
    """The begin and the end of each tenth of the trials, by the journal; a line of each."""
    moments, over = [_moment(run)], 0
    while not (found := list(root.glob("studies/*/journal.jsonl"))) and run.poll() is None:
        time.sleep(0.2)
    with found[0].open("rb") as journal:
        while run.poll() is None:
            over += _new_ends(journal)
            if over >= len(moments) * count // 10 and len(moments) <= 10:
                before, now = moments[-1], _moment(run)
                moments.append(now)
                each, spent = (now.time - before.time), (now.spent - before.spent)
                sys.stdout.write(
                    f"{over} trials: {each * 10 / count:.3f} s each, "
                    f"{spent * 10 / count:.3f} of the driver's processor, "
                    f"{now.memory / MIB:.0f} MB, load {os.getloadavg()[0]:.1f}\n"
                )
                sys.stdout.flush()
            time.sleep(0.2)
    return moments


def _new_ends(journal: IO[bytes]) -> int:
    """Trials that have ended, by the whole lines that were not read before."""
    text = journal.read()
    whole = text.rfind(b"\n") + 1
    journal.seek(whole - len(text), os.SEEK_CUR)
    return text[:whole].count(b'"event": "ended"')


def _moment(run: psutil.Popen) -> Moment:
    spent = run.cpu_times()
    return Moment(time.monotonic(), spent.user + spent.system, run.memory_info().rss)


def idle(config: dict[str, Any], root: str, *_: Any, **__: Any) -> None:
    """Stands for `study.driver.worker.run_work`: everything but training."""
    from ray.tune import report

    job = Job.from_json(json.loads(config["work"]))
    history = [_record(job.trial, epoch) for epoch in range(1, EPOCHS + 1)]
    for each in history:
        report({"record": json.dumps(asdict(each)), "warnings": []})
    folder, error = job.folder(Path(root)), history[-1].metrics["val_force_rmse"]
    names = ("energy_rmse", "energy_mae", "force_rmse", "force_mae", "frame_energy_rmse")
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
