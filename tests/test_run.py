from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ase.io
import pytest
from rich.console import Console

from study import run
from study.console.command_line import seconds_in, seconds_until
from study.console.json_lines import JsonLines
from study.console.progress_table import ProgressTable
from study.core import provenance
from study.core.atomic_io import write_hashed
from study.core.records import EpochRecord, JobResult
from study.core.signals import ShutdownRequest
from study.datasets.frames import Frames
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, save_outcome
from study.planning.arms import names_of
from study.scheduling.budget import Budget
from study.scheduling.proposals.grid import Grid
from study.scheduling.protocols import Planned
from study.scheduling.scheduler import Scheduler
from study.space import search_space
from study.space.overrides import parse_change
from study.space.search_space import Space, load_space
from study.space.trial import Trial
from tests.test_documents_commands import atoms_of

ARMS = "trial:\n  choice:\n    - {pretrain: null, finetune: {epochs: 30}}\n    - {}\n"


def with_changes(path: Path, *changes: str) -> Space:
    return load_space(str(path), "quick", [parse_change(text) for text in changes])


def answer(path: Path, *options: str) -> int:
    return run.main(
        ["--space", str(path), "--profile", "quick", "--out", str(path.parent / "runs"), *options]
    )


def test_set_replaces_values_and_holes(space_file: Path) -> None:
    space = with_changes(
        space_file,
        "trial.finetune.epochs=7",
        "trial.pretrain.task.masking_ratio={choice: [0.9, 1.0]}",
        "trial.finetune.clip_norm=0.5",
        "seeds=[3]",
    )
    trials = space.grid()
    assert {trial.finetune.epochs for trial in trials} == {7}
    assert {trial.finetune.clip_norm for trial in trials} == {0.5}
    assert {trial.seed for trial in trials} == {3}
    ratios = {t.pretrain.task.masking_ratio for t in trials if t.pretrain}
    assert ratios == {0.9, 1.0}


def test_set_reaches_every_arm_and_switches_nothing_on(space_file: Path) -> None:
    space_file.write_text(space_file.read_text().replace("trial:\n", ARMS, 1))
    trials = with_changes(space_file, "trial.finetune.epochs=7", "trial.pretrain.epochs=2").grid()
    assert {trial.finetune.epochs for trial in trials} == {7}
    assert {trial.pretrain.epochs for trial in trials if trial.pretrain} == {2}
    assert any(trial.pretrain is None for trial in trials)


def test_set_can_switch_a_stage_off(space_file: Path) -> None:
    assert all(t.pretrain is None for t in with_changes(space_file, "trial.pretrain=null").grid())


@pytest.mark.parametrize(
    ("chosen", "rule"),
    [
        (["--set", "trial.finetune.epochs=0"], "--set trial.finetune.epochs: must be >= 1"),
        (
            ["--set", "finetune.epochs=3"],
            "--set finetune.epochs: unknown key; did you mean `trial.finetune.epochs`?",
        ),
        (["--set", "trial.finetune.epohs=3"], "--set trial.finetune.epohs: unknown key; did you"),
        (["--set", "trial.model={name: egn}"], "--set trial.model: `name` must be one of"),
        (["--set", "trial.finetune.epochs"], "must be key=value"),
        (["--set", "=3"], "must be key=value"),
        (["--set", "profiles.quick.seeds=[1]"], "profiles are chosen with --profile"),
        (["--set", "seeds=[1, "], "--set seeds: not valid YAML"),
        (["--set", "trial.finetune.lr={uniform: [1e-4, 1]}"], "needs a `search:` block"),
        (["--seeds", "1,1"], "--set seeds: `seeds` must differ"),
        (["--seeds", "a"], "--set seeds.0: must be a whole number"),
        (["--trials", "4"], "is a grid"),
        (["--data", "nope.extxyz"], "--data nope.extxyz: no such file"),
        (["--max-concurrent", "0"], "must be at least 1"),
        (["--max-concurrent", "2", "--address", "h:1"], "needs this machine"),
        (["--budget", "much"], "must be a duration such as 30min"),
        (["--budget", "0h"], "must be a duration such as 30min"),
        (["--audit", "2"], "needs `early_stopping:`"),
        (["--stop-at", "teatime"], "must be a time such as 18:30"),
        (["--stop-at", "2020-01-01"], "is over; name a moment in the future"),
    ],
)
def test_bad_options_are_answered_in_a_line_and_write_nothing(
    space_file: Path, capsys: pytest.CaptureFixture[str], chosen: list[str], rule: str
) -> None:
    assert answer(space_file, *chosen) == 2
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1
    assert [path.name for path in space_file.parent.iterdir()] == [space_file.name]


def test_trials_of_a_search_can_be_chosen(
    space_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space_file.write_text("search: {trials: 9}\n" + space_file.read_text())
    assert answer(space_file, "--trials", "4", "--dry-run") == 0
    assert "4 trials sampled by Optuna (TPE); best 1 rerun" in capsys.readouterr().out


def test_a_space_is_read_once(space_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space_file.write_text("search: {trials: 9}\n" + space_file.read_text())
    read, read_yaml = [], search_space.read_yaml

    def counted(path: Path) -> object:
        read.append(path)
        return read_yaml(path)

    monkeypatch.setattr(search_space, "read_yaml", counted)
    assert answer(space_file, "--trials", "4", "--seeds", "1,2", "--dry-run") == 0
    assert read == [space_file]


def test_an_audit_is_part_of_the_plan(space_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space_file.write_text("search: {trials: 9}\nearly_stopping: {}\n" + space_file.read_text())
    assert answer(space_file, "--audit", "2", "--dry-run") == 0
    assert "audit    finishes 2 randomly drawn stopped trials" in capsys.readouterr().out
    assert answer(space_file, "--audit", "0", "--dry-run") == 2


def test_a_file_of_data_takes_the_place_of_the_data_set(
    space_file: Path, water: Frames, capsys: pytest.CaptureFixture[str]
) -> None:
    file = space_file.parent / "my.extxyz"
    ase.io.write(file, [atoms_of(water, number) for number in [*range(12)] * 3])
    by_frame = ("--set", "trial.split.by=frame")
    assert answer(space_file, "--data", str(file), "--dry-run", *by_frame) == 0
    assert f"data     {file}" in capsys.readouterr().out


def test_an_empty_file_of_data_is_refused_by_a_dry_run(
    space_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = space_file.parent / "my.extxyz"
    file.touch()
    assert answer(space_file, "--data", str(file), "--dry-run") == 2
    assert str(file) in capsys.readouterr().err


def test_max_concurrent_limits_the_slots(
    space_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(space_file, "--max-concurrent", "1", "--dry-run") == 0
    assert "1 trial at a time" in capsys.readouterr().out


def test_quiet_and_json_keep_the_standard_output_clean(
    space_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(space_file, "--quiet", "--dry-run") == 0
    assert capsys.readouterr() == ("", "")
    assert answer(space_file, "--json", "--dry-run") == 0
    spoken = capsys.readouterr()
    assert json.loads(spoken.out)["event"] == "plan"
    assert "Which ratio?" in spoken.err


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom study.run import main\ntry:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'pydantic', 'rich', 'torch', 'numpy', 'ray', 'mlflow'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "exit codes" in done.stdout
    for code in ("0", "1", "2", "75", "130"):
        assert f"\n  {code} " in done.stdout


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30min", 1800), ("1.5h", 5400), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_in(text, "--budget") == seconds


def test_a_time_of_day_that_is_over_is_tomorrows() -> None:
    hour_ago = (datetime.now().astimezone() - timedelta(hours=1)).strftime("%H:%M")
    assert 22.9 * 3600 < seconds_until(hour_ago) < 23.1 * 3600


def work(tiny: Any, seed: int) -> Job:
    trial: Trial = tiny(pretrain=None, seed=seed)
    return Job("trial", trial, "d", "c")


class Endless:
    """Proposals without end."""

    def __init__(self, tiny: Any) -> None:
        self.tiny, self.handed_out = tiny, 0

    def next(self) -> Planned:
        self.handed_out += 1
        return Planned(self.handed_out, work(self.tiny, self.handed_out))

    def reported(self, number: int, epoch: int, value: float) -> None: ...

    def ended(self, number: int, result: JobResult, values: list[float]) -> None: ...


def costing(epoch: int, seconds: float) -> EpochRecord:
    return EpochRecord("finetune", epoch, {"seconds": seconds, "val_force_rmse": 0.1})


def test_a_spent_budget_begins_no_work_and_puts_off_what_runs(tiny: Any, tmp_path: Path) -> None:
    budget = Budget(share=2, limit=100)
    scheduler = Scheduler(
        Endless(tiny), "val_force_rmse", tmp_path, [budget], None, None, allowance=budget
    )
    trials = [scheduler.next() for _ in range(3)]
    first, second, third = (trial.key for trial in trials if trial)
    for epoch, seconds in ((1, 20.0), (2, 39.0), (1, 20.0)):
        assert not scheduler.report(first, costing(epoch, seconds))
    assert budget.total == 78
    assert not scheduler.report(second, costing(1, 10.0))
    assert not scheduler.stopping
    assert scheduler.report(third, costing(1, 1.0))
    # At its last epoch a trial goes on to its test.
    assert not scheduler.report(first, costing(3, 60.0))
    assert scheduler.report(second, costing(2, 20.0))
    assert scheduler.next() is None
    assert scheduler.finished
    assert scheduler.stopping


def test_a_spent_budget_takes_over_what_is_done(tiny: Any, tmp_path: Path) -> None:
    trials, budget = [work(tiny, seed) for seed in range(2)], Budget(share=1, limit=5)
    for trial in trials:
        folder = trial.folder(tmp_path)
        weights = write_hashed(folder, "weights", ".safetensors", b"")
        save_outcome(folder, Outcome(JobResult("completed"), [costing(1, 9.0)], weights))
    grid = Grid(trials, {}, exempt=True)
    scheduler = Scheduler(grid, "val_force_rmse", tmp_path, [budget], allowance=budget)
    assert not scheduler.has_work()
    assert budget.exhausted
    assert not scheduler.stopping


def display(
    console: Console, *, every_epoch: bool, names: dict[str, str] | None = None
) -> ProgressTable:
    return ProgressTable(
        console,
        "val_force_rmse",
        1.0,
        1,
        1,
        lambda _trial, _stage: 1.0,
        names or {},
        ShutdownRequest(),
        every_epoch=every_epoch,
    )


def record(epoch: int, error: float) -> EpochRecord:
    return EpochRecord("finetune", epoch, {"seconds": 1.0, "val_force_rmse": error})


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_says_every_epoch_off_a_terminal(tiny: Any, *, verbose: bool) -> None:
    console = Console(width=200, force_terminal=False)
    shown = display(console, every_epoch=verbose)
    with console.capture() as captured:
        shown.started(work(tiny, 0), 0)
        shown.recorded(work(tiny, 0), record(1, 0.05))
        shown.recorded(work(tiny, 0), record(2, 0.06))
    line = "egnn scratch, seed 0: epoch 2 of 3, 60.0 meV/Å, best 50.0 meV/Å"
    assert captured.get().splitlines()[-1:] == ([line] if verbose else [])


def test_work_that_differs_in_any_setting_has_another_name(tiny: Any) -> None:
    changes = [{"finetune__precision": "bf16"}, {"finetune__precision": "float32"}]
    changes.append(changes[0] | {"pretrain__precision": "bf16"})
    works = [Job("trial", tiny(**each), "d") for each in changes]
    pretrainings = [each.pretraining for each in works if each.pretraining]
    names = names_of(works) | names_of(pretrainings)
    assert len({work.label for work in works}) == 1
    assert len({names[work.key] for work in works}) == len(works)
    assert len({names[work.key] for work in pretrainings}) == 2
    console = Console(width=200, force_terminal=False)
    shown = display(console, every_epoch=True, names=names)
    with console.capture() as captured:
        shown.started(works[0], 0)
        shown.recorded(works[0], record(1, 0.05))
    assert captured.get().startswith(f"{names[works[0].key]}: epoch 1 of 3")
    assert "finetune.precision bf16" in names[works[0].key]


def test_json_lines_tell_what_happens(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines, trial = JsonLines(), work(tiny, 0)
    lines.planned(Planned(0, trial))
    lines.started(trial, 0)
    lines.recorded(trial, record(1, 0.05))
    lines.ended(trial, JobResult("failed", "too hot"))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["planned", "started", "epoch", "ended"]
    assert {event["key"] for event in events} == {trial.key}
    assert events[2]["metrics"]["val_force_rmse"] == 0.05
    assert (events[3]["status"], events[3]["reason"]) == ("failed", "too hot")


def test_no_color_means_no_colour(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del capsys
    colours = {}
    for value in ("", "1"):
        monkeypatch.setenv("NO_COLOR", value)
        monkeypatch.setenv("TERM", "xterm-256color")
        console = Console(force_terminal=True, width=100)
        shown = display(console, every_epoch=False)
        shown.started(work(tiny, 0), 0)
        shown.ended(work(tiny, 0), JobResult("failed", "too hot"))
        with console.capture() as captured:
            console.print(shown.render())
        colours[value] = "\x1b[31m" in captured.get()
    assert colours == {"": True, "1": False}


def summary_of(shown: ProgressTable) -> list[str]:
    return shown.summary().split(" · ")


def test_the_time_left_of_a_trial_follows_its_speed(tiny: Any) -> None:
    shown, trial = display(Console(), every_epoch=False), work(tiny, 0)
    shown.started(trial, 0)
    assert shown.progress.jobs[trial.key].seconds_left is None
    shown.recorded(trial, EpochRecord("finetune", 2, {"seconds": 8.0, "val_force_rmse": 0.1}))
    assert shown.progress.jobs[trial.key].seconds_left == 4
    shown.ended(trial, JobResult("completed"))
    assert shown.progress.jobs[trial.key].seconds_left is None


def test_work_done_before_counts_as_reused_and_saved(tiny: Any) -> None:
    shown, trial = display(Console(), every_epoch=False), work(tiny, 0)
    shown.started(trial, 0)
    shown.recorded(trial, EpochRecord("finetune", 3, {"seconds": 300.0, "val_force_rmse": 0.1}))
    shown.ended(trial, JobResult("completed"))
    assert "1 reused, 5 min saved" in summary_of(shown)


def test_a_pretraining_that_two_trials_share_is_saved_once(tiny: Any) -> None:
    shown = display(Console(), every_epoch=False)
    trials = [Job("trial", tiny(finetune__lr=lr), "d", "c") for lr in (0.1, 0.2)]
    pretraining = trials[0].pretraining
    assert pretraining is not None
    shown.started(pretraining, None)
    shown.progress.jobs[pretraining.key].began -= 400
    shown.recorded(pretraining, EpochRecord("pretrain", 2, {"seconds": 360.0, "val_loss": 0.1}))
    shown.ended(pretraining, JobResult("completed"))
    shown.started(trials[0], 0)
    assert not any("reused" in part for part in summary_of(shown))
    shown.started(trials[1], 1)
    assert "1 reused, 6 min saved" in summary_of(shown)


def test_the_use_of_gpus_is_asked_for_only_now_and_then(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["GPU 90 %, 5/139 GB", "GPU 10 %, 1/139 GB"])
    monkeypatch.setattr("study.console.progress_table.gpu_use", lambda: next(answers))
    shown = display(Console(), every_epoch=False)
    shown.started(work(tiny, 0), 0)
    for _ in range(3):
        assert "GPU 90 %, 5/139 GB" in summary_of(shown)
    shown.asked_gpus_at -= 11
    assert "GPU 10 %, 1/139 GB" in summary_of(shown)


def test_gpu_use_is_the_mean_load_and_the_sum_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "gpus", lambda: ("H200", "H200"))
    monkeypatch.setattr(provenance, "_output", lambda *_: "80, 10240, 143360\n40, 0, 143360")
    assert provenance.gpu_use() == "GPU 60 %, 10/280 GB"
    monkeypatch.setattr(provenance, "_output", lambda *_: "[N/A], 1, 2")
    assert provenance.gpu_use() == ""


def test_long_warnings_are_shown_whole(tiny: Any) -> None:
    console = Console(force_terminal=True, width=60, soft_wrap=True, color_system=None)
    shown, trial = display(console, every_epoch=False), work(tiny, 0)
    reason = " ".join(f"word{number}" for number in range(30))
    shown.started(trial, 0)
    shown.ended(trial, JobResult("failed", reason))
    with console.capture() as captured:
        console.print(shown.render())
    assert reason in " ".join(captured.get().split())
