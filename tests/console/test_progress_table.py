"""The live table of a running study."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

from rich.console import Console

from study.console.progress_table import ProgressTable
from study.core.records import EpochRecord
from study.pipeline.job import Job
from study.space.trial import Trial


def test_a_job_takes_one_line_of_80_columns(tiny: Callable[..., Trial]) -> None:
    trial = Job("trial", tiny(finetune__epochs=20, pretrain__task__masking_ratio=0.25), "data")
    assert trial.pretraining is not None
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    table = ProgressTable(console, "val_force_rmse", 1.0, 2, 1, lambda *_: 1.0, {})
    for job, stage, metric in (
        (trial.pretraining, "pretrain", "val_loss"),
        (trial, "finetune", "val_force_rmse"),
    ):
        table.started(job, 0)
        table.recorded(job, EpochRecord(stage, 1, {metric: 0.1193, "seconds": 1.0}))
    console.print(table.render())
    shown = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    rows = [line for line in shown if "masking 0.25" in line]
    assert len(rows) == 2
    assert "loss 0.119" in rows[0]
    assert "119.3" in rows[1]
    assert all("seed 0" in row and row.rstrip().endswith("running") for row in rows)
