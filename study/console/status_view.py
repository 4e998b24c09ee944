"""What `python -m study.status` shows of one study or all."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from study.console.formatting import (
    PlainConsole,
    duration,
    error_in,
    metric_title,
    relative_to_cwd,
    with_unit,
    without_unit,
)
from study.console.result_table import front_table
from study.core.errors import UserError
from study.core.paths import real_path
from study.core.quantities.metrics import meaning_of
from study.core.records import FINAL_STATUSES
from study.planning.study_state import StudyState, TrialState, study_state
from study.tracking.publish import was_published


def show_all(out: Path, *, as_json: bool) -> None:
    """Show all studies of a folder of results, one line for each.

    Raises:
        UserError: if there is none.
    """
    names = _studies(out)
    if not as_json:
        _list(names, real_path(out), _console())
        return
    for name in names:
        _print_json(study_state(real_path(out), name))


def show_study(study: str, out: Path, *, every: bool, as_json: bool) -> None:
    """Show one study.

    Args:
        study: its name or folder.
        out: folder of all results.
        every: whether to list every trial.
        as_json: whether to print a JSON line.

    Raises:
        UserError: if there is no such study.
    """
    state = study_state(*_find(study, out))
    if as_json:
        _print_json(state)
    else:
        _describe(state, _console(), every=every)


def _console() -> Console:
    return PlainConsole()


def _studies(out: Path) -> list[str]:
    names = sorted(path.parent.name for path in out.glob("studies/*/study.json"))
    if not names:
        raise UserError(f"{out}: no study here; name the folder of your results with --out")
    return names


def _find(study: str, out: Path) -> tuple[Path, str]:
    """Root and name of a study given by folder or name."""
    folder = real_path(Path(study))
    if (folder / "study.json").exists():
        return folder.parent.parent, folder.name
    names = _studies(out)
    if study not in names:
        raise UserError(f"{study}: no such study in {out}; it has {', '.join(names)}")
    return real_path(out), study


def _print_json(state: StudyState) -> None:
    best = state.best
    value = {
        "name": state.plan.name,
        "question": state.question,
        "state": state.word,
        "total": state.total,
        "counts": dict(state.counts),
        "metric": state.metric,
        "best": best.number if best else None,
        "front": [trial.number for trial in state.front],
        "compute_seconds": state.compute,
        "quiet_seconds": state.quiet,
        "command": state.command,
        "trials": [asdict(trial) for trial in state.trials],
    }
    sys.stdout.write(f"{json.dumps(value)}\n")


def _list(names: list[str], root: Path, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("study", "state", "trials", "best", "last update"):
        table.add_column(column)
    for name in names:
        try:
            state = study_state(root, name)
        except UserError as problem:
            table.add_row(name, "unreadable", "", "", str(problem).partition(": ")[2])
            continue
        failed = f", {state.counts['failed']} failed" if state.counts["failed"] else ""
        trials = f"{state.done}/{state.total}{failed}"
        table.add_row(name, state.word, trials, _best(state), _ago(state.quiet))
    console.print(table)


def _describe(state: StudyState, console: Console, *, every: bool) -> None:
    console.print(f"{state.plan.name}: {state.question}", style="bold")
    search = state.plan.space.settings.search
    counts = ", ".join(f"{count} {status}" for status, count in state.counts.items())
    told = f" ({counts})" if counts else ""
    console.print(f"  state       {state.word}, {state.done}/{state.total} trials{told}")
    if state.best is not None:
        trial = state.best
        console.print(f"  best        {_best(state)}, trial {trial.number} ({trial.label})")
        console.print(f"              {meaning_of(state.metric)}")
    if state.front and search is not None:
        console.print()
        rows = [(trial.number, trial.label, trial.objectives) for trial in state.front]
        console.print(front_table(rows, search))
        console.print()
    if state.audit[1]:
        console.print("  audit       {} of {} stopped trials finished".format(*state.audit))
    console.print(f"  compute     {duration(state.compute)} in finished trials")
    console.print(f"  last update {_ago(state.quiet)}")
    shown = [t for t in state.trials if every or t.status not in (*FINAL_STATUSES, "failed")]
    if shown:
        console.print()
        console.print(_trial_table(shown, state.metric))
    _describe_failures(state, console)
    if not state.running and state.word != "done" and state.command:
        console.print(f"\nResume with:\n  {state.command}")
    elif _lacks_report(state):
        console.print(f"\nReport or model are not complete; make them with:\n  {state.command}")


def _lacks_report(state: StudyState) -> bool:
    """Whether the command of a study that is done has yet to make its report or log its model."""
    asked = "--no-report" not in shlex.split(state.command) and state.best is not None
    return (
        bool(state.command)
        and state.word == "done"
        and asked
        and not was_published(state.plan.folder.path)
    )


def _describe_failures(state: StudyState, console: Console) -> None:
    alike: dict[tuple[str, str], list[TrialState]] = {}
    for trial in state.trials:
        if trial.status in ("failed", "diverged"):
            alike.setdefault((trial.status, error_in(trial.reason)), []).append(trial)
    for trial, *others in alike.values():
        console.print(f"\ntrial {trial.number} ({trial.label}) {trial.status}: {trial.reason}")
        if others:
            console.print(f"  the same in trials {', '.join(str(each.number) for each in others)}")
        for line in trial.log:
            console.print(f"  | {line}", style="dim")
        folder = shlex.quote(str(relative_to_cwd(state.plan.folder.path)))
        console.print(f"  rerun it with: python -m study.rerun {folder} {trial.number}")


def _trial_table(trials: list[TrialState], metric: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("#", "trial", "status", "epoch", metric_title(metric), "best"):
        table.add_column(name, justify="left" if name in ("trial", "status") else "right")
    for trial in trials:
        values = [_number(metric, value) for value in (trial.value, trial.best)]
        epochs = f"{trial.epoch}/{trial.epochs}"
        table.add_row(str(trial.number), trial.label, trial.status, epochs, *values)
    return table


def _number(metric: str, value: float | None) -> str:
    return "–" if value is None else without_unit(metric, value)


def _best(state: StudyState) -> str:
    return _shown(state.metric, state.best.best) if state.best else "–"


def _shown(metric: str, value: float | None) -> str:
    return "–" if value is None else with_unit(metric, value)


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"
