"""What studies have done so far: `python -m study.status [STUDY]`.

Works while a study runs and after its driver died; reads and changes nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.errors import UserError, exit_code
from study.core.paths import real_path

if TYPE_CHECKING:
    from rich.console import Console

    from study.planning.study_state import StudyState, TrialState

# Nothing heavy is imported before it is needed, so that help appears at once.


def main(arguments: list[str] | None = None) -> int:
    """Show one study or all; 0 is success, 2 something the user can mend."""
    chosen = parser().parse_args(arguments)
    return exit_code(lambda: _show(chosen))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m study.status",
        description=__doc__,
        epilog="Exit codes: 0 shown, 2 no such study.",
    )
    made.add_argument("study", nargs="?", help="name or folder of a study; all when left out")
    made.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder of all results (default: runs)"
    )
    made.add_argument("--all", action="store_true", help="list every trial, not just the open")
    made.add_argument("--json", action="store_true", help="print JSON, one line per study")
    return made


def _show(chosen: argparse.Namespace) -> None:
    from rich.console import Console

    from study.planning.study_state import study_state

    console = Console(highlight=False, soft_wrap=True, markup=False)
    if chosen.study is None:
        names = _studies(chosen.out)
        if chosen.json:
            for name in names:
                _print_json(study_state(real_path(chosen.out), name))
        else:
            _list(names, real_path(chosen.out), console)
        return
    root, name = _found(chosen.study, chosen.out)
    state = study_state(root, name)
    if chosen.json:
        _print_json(state)
    else:
        _describe(state, console, every=chosen.all)


def _studies(out: Path) -> list[str]:
    names = sorted(path.parent.name for path in out.glob("studies/*/study.json"))
    if not names:
        raise UserError(f"{out}: no study here; name the folder of your results with --out")
    return names


def _found(study: str, out: Path) -> tuple[Path, str]:
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
        "compute_seconds": state.compute,
        "quiet_seconds": state.quiet,
        "command": state.command,
        "trials": [asdict(trial) for trial in state.trials],
    }
    sys.stdout.write(f"{json.dumps(value)}\n")


def _list(names: list[str], root: Path, console: Console) -> None:
    from rich.table import Table

    from study.planning.study_state import study_state

    table = Table(box=None, pad_edge=False)
    for column in ("study", "state", "trials", "best", "last news"):
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
    from study.console.formatting import duration
    from study.core.records import FINAL_STATUSES, METRICS

    console.print(f"{state.plan.name}: {state.question}", style="bold")
    counts = ", ".join(f"{count} {status}" for status, count in state.counts.items())
    console.print(f"  state      {state.word}, {state.done}/{state.total} trials ({counts})")
    if state.best is not None:
        trial, (_, meaning) = state.best, METRICS[state.metric]
        console.print(f"  best       {_best(state)}, trial {trial.number} ({trial.label})")
        console.print(f"             {meaning}")
    if state.audit[1]:
        console.print("  audit      {} of {} stopped trials finished".format(*state.audit))
    console.print(f"  compute    {duration(state.compute)} in finished trials")
    console.print(f"  last news  {_ago(state.quiet)}")
    shown = [t for t in state.trials if every or t.status not in (*FINAL_STATUSES, "failed")]
    if shown:
        console.print()
        console.print(_trial_table(shown, state.metric))
    _describe_failures(state, console)
    if not state.running and state.word != "done" and state.command:
        console.print(f"\nGo on with:\n  {state.command}")


def _describe_failures(state: StudyState, console: Console) -> None:
    from study.console.formatting import near

    for trial in state.trials:
        if trial.status not in ("failed", "diverged"):
            continue
        console.print(f"\ntrial {trial.number} ({trial.label}) {trial.status}: {trial.reason}")
        for line in trial.log:
            console.print(f"  | {line}", style="dim")
        folder = shlex.quote(str(near(state.plan.folder.path)))
        console.print(f"  alone: python -m study.rerun {folder} {trial.number}")


def _trial_table(trials: list[TrialState], metric: str) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("#", "trial", "status", "epoch", "now", "best"):
        table.add_column(name, justify="left" if name in ("trial", "status") else "right")
    for trial in trials:
        values = [_shown(metric, value) for value in (trial.value, trial.best)]
        epochs = f"{trial.epoch}/{trial.epochs}"
        table.add_row(str(trial.number), trial.label, trial.status, epochs, *values)
    return table


def _best(state: StudyState) -> str:
    return _shown(state.metric, state.best.best) if state.best else "–"


def _shown(metric: str, value: float | None) -> str:
    from study.console.formatting import with_unit

    return "–" if value is None else with_unit(metric, value)


def _ago(seconds: float) -> str:
    from study.console.formatting import duration

    return f"{duration(seconds)} ago"


if __name__ == "__main__":
    sys.exit(main())
