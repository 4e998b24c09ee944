"""Run a study: `python -m study.run --space masking_ratio.yaml`.

The same command continues an interrupted study and skips what is finished.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from study.journal import Journal
    from study.plan import DataSets, Plan
    from study.tracking import Tracker

FAILED, MISUSE, INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one study.

    Returns:
        0; 1 if a trial failed; 2 for what the user can mend; 130 after Ctrl-C or SIGTERM.
    """
    chosen = _parser().parse_args(arguments)
    try:
        with _sigterm_as_interrupt():
            return _run(chosen)
    except UserError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
        return MISUSE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(
            f"{place}{error.strerror or error}; mend that and run the same command again, it goes "
            "on from what is done\n"
        )
        return MISUSE
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command continues the study\n")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study.run",
        description="Run a study of pretraining: make its data, pretrain, finetune, compare. "
        "The same command continues an interrupted study and skips what is finished.",
        epilog="Exit codes: 0 done, 1 a trial failed, 2 bad input, 130 interrupted.",
    )
    add = parser.add_argument
    add("--space", required=True, help="a YAML file, or the name of one in search_spaces/")
    add("--profile", help="quick or paper (default: paper with a GPU, quick without)")
    add("--out", type=Path, default=Path("runs"), help="folder of all results (default: runs)")
    add("--name", help="name of the study (default: space and profile)")
    add("--tracking-uri", help="MLflow server or database (default: a database in --out)")
    add("--address", help="Ray cluster to run on (default: this machine)")
    add("--dry-run", action="store_true", help="show the plan and write nothing")
    return parser


def _run(chosen: argparse.Namespace) -> int:
    plan, reason = _plan(chosen)
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{plan.space.path.stem}, profile {plan.space.profile} ({reason})")
    plan.check(on_cluster=bool(chosen.address))
    plan.show(console)
    if chosen.dry_run:
        return 0
    from study.durable import locked
    from study.tracking import require_reachable

    require_reachable(plan.tracking_uri)
    if chosen.address:
        from study import tune

        tune.require_reachable(chosen.address)
    busy = f"{plan.folder.path}: this study is running already; wait for it, or choose a --name"
    with locked(plan.folder.lock, busy):
        journal, experiment = _conduct(plan, console, chosen.address)
    return _conclude(plan, journal, experiment, console)


def _plan(chosen: argparse.Namespace) -> tuple[Plan, str]:
    """What to do, and why with this profile."""
    from study.plan import Plan
    from study.provenance import gpus
    from study.space import STUDY_NAME, load_space

    profile, reason = chosen.profile, "as asked"
    if profile is None:
        profile = "paper" if gpus() else "quick"
        why = "a GPU is here" if gpus() else "no GPU here"
        reason = f"{why}; --profile {'quick' if gpus() else 'paper'} for the other"
    space = load_space(chosen.space, profile)
    name = chosen.name or space.name
    if not STUDY_NAME.fullmatch(name):
        raise UserError(
            f"--name {name}: must be letters, digits, `_`, `-`, `.`, at most 64, the first a "
            "letter or digit"
        )
    root = chosen.out.resolve()
    uri = chosen.tracking_uri or f"sqlite:///{root}/mlflow.db"
    return Plan(space, root, name, uri), reason


def _conduct(plan: Plan, console: Console, address: str | None) -> tuple[Journal, str]:
    """Make the data, do all work, record it.

    Returns:
        The journal, and the id of MLflow's experiment.
    """
    from study.data import progress_display
    from study.journal import Journal
    from study.tracking import Tracker

    study = plan.folder.write(plan.space, plan.tracking_uri, {})
    tracker = Tracker(plan.tracking_uri, plan.name, plan.root, plan.tags(study))
    tracker.open()
    status = "KILLED"
    try:
        with progress_display("simulating water") as progress:
            data = plan.prepare(progress)
        plan.folder.write(plan.space, plan.tracking_uri, data.hashes)
        journal = Journal(plan.folder.journal, plan.space.settings.metric)
        tracker.wait()
        _work_off(plan, data, journal, tracker, console, address)
        status = "FINISHED"
    finally:
        if not tracker.close(status):
            why = tracker.problem or "it is too slow"
            console.print(
                f"MLflow did not take all records ({why}); the same command adds them.",
                style="red",
            )
    return journal, tracker.runs.experiment_id


def _work_off(
    plan: Plan,
    data: DataSets,
    journal: Journal,
    tracker: Tracker,
    console: Console,
    address: str | None,
) -> None:
    """Run all work that is left; Ray starts only if there is some."""
    from study import tune
    from study.conductor import Conductor, Observer
    from study.display import Display
    from study.provenance import cores
    from study.search import build_search

    resources, metric = plan.space.settings.resources, plan.space.settings.metric
    try:
        slots = tune.connect(resources, address=address) if address else plan.slots
        display = Display(console, metric, plan.seconds, slots, plan.trials, plan.seconds_of)
        proposals, early_stop = build_search(plan, journal, data.work, slots)
        observers: list[Observer] = [journal, tracker, display]
        conductor = Conductor(
            proposals, metric, plan.root, observers, early_stop, journal.stopped()
        )
        if not conductor.has_work():
            return
        if not address:
            tune.connect(resources, cpus=cores())
        with display:
            tune.run(conductor, resources, plan.root, data.folders, plan.folder.path / "ray")
    finally:
        tune.disconnect()


def _conclude(plan: Plan, journal: Journal, experiment: str, console: Console) -> int:
    """Show the result table, where everything is, and what to do next."""
    from study.summary import arms, result_table
    from study.work import load_outcome

    ended, failed = [], False
    for entry in journal.entries().values():
        if entry.result is not None:
            outcome = load_outcome(entry.planned.work.folder(plan.root))
            result = outcome.result if outcome and entry.over else entry.result
            ended.append((entry.planned.work, result))
            failed |= not entry.over
    console.print()
    console.print(result_table(arms(ended)))
    folder = shlex.quote(str(_near(plan.folder.path)))
    console.print(f"\nEverything is in {_near(plan.root)}. The report, by way of Parquet tables:")
    console.print(f"  python -m analysis.export {folder} && python -m analysis.report {folder}")
    console.print("Runs and curves in MLflow:")
    for line in _mlflow_commands(plan.tracking_uri, experiment):
        console.print(f"  {line}")
    return FAILED if failed else 0


def _mlflow_commands(uri: str, experiment: str) -> list[str]:
    """How to open the study in MLflow's UI, whose front page shows traces of language models."""
    from study.mlflow_runs import without_password

    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    if uri.startswith("http"):
        return [f"{without_password(uri)}/{page}"]
    quiet = "MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"
    store = shlex.quote(without_password(uri))
    return [
        f"{quiet} mlflow ui --workers 1 --backend-store-uri {store}",
        f"http://127.0.0.1:5000/{page}",
    ]


def _near(path: Path) -> Path:
    """Relative to here, if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """A scheduler's SIGTERM ends the study as cleanly as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
