"""The live table of a running study."""

from __future__ import annotations

import signal
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from study.console.progress_table import ProgressTable
from study.core.records import EpochRecord, JobResult, StageName
from study.core.signals import STOPPING, ShutdownRequest
from study.pipeline.job import Job, Segment
from study.scheduling.protocols import Member, Planned
from study.space.trial import Trial

WINDOWS = [(80, 24), (60, 20), (200, 50)]


def shown(console: Console, table: ProgressTable) -> list[str]:
    with console.capture() as captured:
        console.print(table.render())
    return captured.get().splitlines()


def table_of(width: int, height: int, stop: ShutdownRequest | None = None) -> ProgressTable:
    console = Console(
        file=StringIO(), width=width, height=height, force_terminal=True, color_system=None
    )
    return ProgressTable(
        console, "val_force_rmse", 1.0, 2, 40, lambda *_: 1.0, {}, stop or ShutdownRequest()
    )


def test_a_job_takes_one_line_of_80_columns(tiny: Callable[..., Trial]) -> None:
    trial = Job("trial", tiny(finetune__epochs=20, pretrain__task__masking_ratio=0.25), "data")
    assert trial.pretraining is not None
    table = table_of(80, 24)
    cases: tuple[tuple[Job, StageName, str], ...] = (
        (trial.pretraining, "pretrain", "val_loss"),
        (trial, "finetune", "val_force_rmse"),
    )
    for job, stage, metric in cases:
        table.started(job, 0)
        table.recorded(job, EpochRecord(stage, 1, {metric: 0.1193, "seconds": 1.0}))
    rows = [line for line in shown(table.console, table) if "masking 0.25" in line]
    assert len(rows) == 3
    assert rows[0].startswith("best val force RMSE 119.3 meV/Å: #0 masking 0.25")
    assert "pretrain 1/" in rows[1]
    assert "loss 0.119" in rows[1]
    assert "finetune 1/20" in rows[2]
    assert "119.3" in rows[2]
    assert all("seed 0" in row for row in rows)
    assert rows[2].rstrip().endswith("19 s left")


@pytest.mark.parametrize(("width", "height"), WINDOWS)
def test_the_table_fits_every_window(width: int, height: int, tiny: Callable[..., Trial]) -> None:
    table = table_of(width, height)
    for number in range(40):
        trial = tiny(seed=number, model__cutoff=3 + number / 1000, finetune__lr=1e-3 + number / 1e5)
        table.started(Job("trial", trial, "data"), number)
    table.warnings += [f"trial {number} diverged" for number in range(9)]
    lines = shown(table.console, table)
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)
    assert "0/40 trials done · 40 running" in lines[0]


def test_what_a_search_proposes_is_told_apart(tiny: Callable[..., Trial]) -> None:
    table = table_of(80, 24)
    for number, ratio in enumerate((0.25, 0.5, 0.9)):
        trial = tiny(pretrain__task__masking_ratio=ratio, finetune__lr=1e-3 * (number + 1))
        table.started(Job("trial", trial, "data"), number)
    rows = [line.split("  ")[0] for line in shown(table.console, table) if "masking" in line]
    assert len(set(rows)) == 3
    assert [row[:15] for row in rows] == ["#0 masking 0.25", "#1 masking 0.5,", "#2 masking 0.9,"]


def test_a_row_of_80_columns_shows_what_a_search_varies(tiny: Callable[..., Trial]) -> None:
    table = table_of(80, 24)
    draw = {"pretrain.task.masking_ratio": 0.1817934, "finetune.lr": 0.0031512}
    trial = tiny(pretrain__task__masking_ratio=0.1817934, finetune__lr=0.0031512)
    jobs = [Job("trial", trial, "data"), Job("trial", tiny(pretrain=None), "data")]
    for number, job in enumerate(jobs):
        table.planned(Planned(number, job, draw, exempt=False))
        table.started(job, number)
        table.recorded(job, EpochRecord("finetune", 1, {"val_force_rmse": 0.1, "seconds": 1.0}))
    assert any(
        line.startswith("#0 masking 0.182, lr 0.00315  ") for line in shown(table.console, table)
    )
    part = Job("trial", tiny(pretrain=None, finetune__lr=0.5), "d", segment=Segment(0, 1, None))
    long = {"finetune.lr": 0.0068123, "finetune.weight_decay": 0.0123}
    table.planned(Planned(2, part, long, tuning=True, member=Member(5, 0, None)))
    table.started(part, 2)
    rows = shown(table.console, table)
    assert any(row.startswith("g5 m0 scratch, lr 0.00681, ") for row in rows)


def test_lines_without_a_terminal_tell_apart_what_a_search_varies(
    tiny: Callable[..., Trial],
) -> None:
    console = Console(file=StringIO(), width=200, force_terminal=False)
    table = ProgressTable(
        console, "val_force_rmse", 1.0, 2, 2, lambda *_: 1.0, {}, ShutdownRequest()
    )
    with console.capture() as captured:
        for number, lr in enumerate((0.001, 0.0031512)):
            job = Job("trial", tiny(pretrain=None, finetune__lr=lr), "data")
            table.planned(Planned(number, job, {"finetune.lr": lr}, exempt=False))
            table.started(job, number)
            table.ended(job, JobResult("completed"))
    names = [line.partition(":")[0] for line in captured.get().splitlines()]
    assert names == [f"egnn scratch, finetune.lr {lr}, seed 0" for lr in ("0.001", "0.00315")]


def test_a_signal_is_acknowledged_in_the_table(tiny: Callable[..., Trial]) -> None:
    stop = ShutdownRequest(request_stop=lambda: None)
    table = table_of(80, 24, stop)
    table.started(Job("trial", tiny(), "data"), 0)
    assert STOPPING not in shown(table.console, table)[0]
    stop.number = signal.SIGINT
    assert shown(table.console, table)[:2] == [STOPPING, "0/40 trials done"]
    stop.request_stop = None
    table.__exit__()
    last = shown(table.console, table)
    assert last[0] == "0/40 trials done · 1 paused"
    assert last[-1].endswith("paused")


def test_what_goes_on_before_the_first_trial_is_shown(tiny: Callable[..., Trial]) -> None:
    table = table_of(80, 24)
    table.say("starting Ray")
    assert shown(table.console, table)[0] == "starting Ray"
    table.started(Job("trial", tiny(), "data"), 0)
    assert "starting Ray" not in shown(table.console, table)[0]


def test_tuning_trials_are_marked_and_are_not_the_best(tiny: Callable[..., Trial]) -> None:
    trial = tiny(seed=100)
    trying = Job("trial", trial, "data")
    untuned, chosen = (Job("trial", tiny(finetune__lr=lr), "data") for lr in (0.005, 0.01))
    table = table_of(80, 24)
    table.names = {trying.key: "egnn masking 0.5, lr 0.01, seed 100", untuned.key: "arm, seed 0"}
    table.planned(Planned(0, trying, {"finetune.lr": 0.01}, tuning=True))
    table.planned(Planned(1, chosen, {"finetune.lr": 0.01}, untuned=untuned))
    for number, (job, error) in enumerate(((trying, 0.1), (chosen, 0.2))):
        table.started(job, number)
        table.recorded(job, EpochRecord("finetune", 1, {"val_force_rmse": error, "seconds": 1.0}))
    best, *rows = [line for line in shown(table.console, table) if "best" in line or "1/" in line]
    assert "200.0 meV/Å: arm, seed 0" in best
    assert "masking 0.5, lr 0.01, tuning" in rows[0]
    assert "arm, seed 0" in rows[1]


def test_of_a_population_the_chosen_is_the_best_and_only_parts_are_reused(
    tiny: Callable[..., Trial],
) -> None:
    """Member 1 has an early low and is replaced, the winner's repeat with seed 1 a lower one."""
    table, long = table_of(80, 24), {"finetune.lr": 0.00123, "finetune.weight_decay": 0.0123}
    last: dict[int, str] = {}
    runs = [
        # Member, seed, first epoch, last one, errors, and how long it has taken here.
        (0, 0, 0, 2, [0.5, 0.4], 200.0),
        (1, 0, 0, 2, [0.2, 0.9], 200.0),
        (0, 0, 2, 4, [0.35, 0.3], 0.0),
        (0, 0, 4, 4, [0.5, 0.4, 0.35, 0.3], 0.0),
        (0, 1, 0, 2, [0.1, 0.1], 200.0),
    ]
    best = []
    for number, (member, seed, begin, until, errors, took) in enumerate(runs):
        segment = Segment(begin, until, last[seed] if begin else None)
        trial = tiny(seed=seed, finetune__epochs=4, finetune__lr=0.001 * (member + 1))
        job, is_test = Job("trial", trial, "data", segment=segment), begin == until
        place = Member(begin // 2, member, None)
        table.planned(Planned(number, job, long, exempt=seed > 0, tuning=not is_test, member=place))
        table.started(job, number)
        table.progress.jobs[job.key].began -= took
        for epoch, error in enumerate(errors, start=job.inherited + 1):
            metrics = {"val_force_rmse": error, "seconds": 100.0 * epoch}
            table.recorded(job, EpochRecord("finetune", epoch, metrics))
        table.ended(job, JobResult("completed"))
        if member == 0:
            last[seed] = job.key
        best.append(shown(table.console, table)[1].split(":")[1:])
    lines = shown(table.console, table)
    # Only the second part of member 0 took no time; the test repeats what its parts have told.
    assert "1 reused, 3 min saved" in lines[0]
    assert lines[1].startswith("best val force RMSE 300.0 meV/Å: test m0")
    assert "".join(best[1]).startswith(" g0 m1")
    rows = [line for line in lines if line[:2] in ("g0", "g1", "te")]
    assert [row[:5] for row in rows] == ["g0 m0", "g0 m1", "g1 m0", "test ", "g0 m0"]
    assert all("finetune " in row and row.endswith(" completed") for row in rows)
    assert "…" in rows[0]


def test_a_study_that_has_fewer_trials_than_it_might_ends_with_those_that_came(
    tiny: Callable[..., Trial],
) -> None:
    table = table_of(80, 24)
    for seed in (0, 1):
        job = Job("trial", tiny(seed=seed), "data")
        table.started(job, seed)
        table.ended(job, JobResult("completed"))
    assert "2/40 trials done" in table.summary()
    table.complete()
    assert "2/2 trials done" in table.summary()
