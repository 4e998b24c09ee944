"""The end of a study: its results in the terminal, its report, and where everything is."""

from __future__ import annotations

import math
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from analysis.statistics.verdict import NEGLIGIBLE
from study.console.formatting import counted, relative_to_cwd
from study.console.json_lines import print_json_event
from study.console.result_table import (
    front_table,
    labelled_arms,
    result_table,
    schedule_table,
    search_tables,
    tuning_table,
)
from study.core.atomic_io import write_bytes
from study.core.errors import UserError, is_disk_fault, one_line
from study.core.records import without_password
from study.planning.arms import arms, names_of
from study.planning.plan import Plan
from study.scheduling.journal import Entry
from study.scheduling.objectives import front_of
from study.scheduling.proposals.confirmation import Confirmation, confirmation
from study.scheduling.proposals.population import schedule_of_best
from study.space.yaml_loader import read_yaml
from study.tracking.publish import (
    PublishingError,
    by_hand,
    headline_of,
    is_current,
    page_of,
    publish,
)
from study.tracking.study_view import address
from study.tracking.tracker import Tracker

MLFLOW_PORT = 5000
"""Where MLflow's UI listens by default; on a Mac another program does."""


@dataclass
class StudySummary:
    """What is done and printed when no work is left.

    Args:
        plan: of the study.
        tracker: that recorded it in MLflow, closed.
        console: where to show it.
        as_json: say it in JSON lines, too.
        published: whether the report is made and logged.
        fault: whether a disk has kept it from that.
    """

    plan: Plan
    tracker: Tracker
    console: Console
    as_json: bool
    published: bool = False
    fault: bool = False

    def show_results(self, entries: Sequence[Entry]) -> None:
        """The table of test errors."""
        reported = [entry for entry in entries if entry.result and not entry.planned.tuning]
        settings = self.plan.space.settings
        tune, metric = settings.tune, settings.metric
        names = list(tune.each_arm) if tune else []
        found = arms(((entry.planned.work, entry.result) for entry in reported), names, metric)
        if self.as_json:
            print_json_event("result", arms=[arm.facts() for arm in found])
        self.console.print()
        if tune:
            self._show_tuning()
        self._show_front(entries)
        search, seed = settings.search, settings.seeds[0]
        if search and search.population:
            self._show_schedule(schedule_of_best(entries))
        title = BEST if search and search.population else None
        searched = search_tables(found, seed, title) if search else []
        for place, table in enumerate(searched or [result_table(found)]):
            self.console.print(*[""] * (place > 0), table, sep="\n")
        ends = [entry.result.status for entry in entries if entry.result]
        if failed := ends.count("failed"):
            study = shlex.quote(str(relative_to_cwd(self.plan.folder.path)))
            message = f"{counted(failed, 'trial')} failed; see the reasons and retry with:"
            self.console.print(f"\n{message} python -m study.status {study}", style="red")

    def _show_front(self, entries: Sequence[Entry]) -> None:
        """The Pareto front of a search with several objectives."""
        search = self.plan.space.settings.search
        best = front_of({entry.planned.number: entry for entry in entries}, search)
        if search is None or not best:
            return
        labels = names_of(entry.planned.work for entry in entries)
        rows = [
            (entry.planned.number, labels[entry.planned.work.key], entry.result.metrics)
            for entry in best
            if entry.result
        ]
        if self.as_json:
            facts = [
                {"number": number, "label": label}
                | {"objectives": {name: metrics[name] for name in search.measured}}
                for number, label, metrics in rows
            ]
            print_json_event("front", trials=facts)
        self.console.print(front_table(rows, search))
        self.console.print()

    def _show_schedule(self, parts: Sequence[Entry]) -> None:
        """What the best member of a population has gone through."""
        if self.as_json:
            trials = [{"number": e.planned.number} | e.planned.parameters for e in parts]
            print_json_event("schedule", trials=trials)
        if parts:
            self.console.print(schedule_table(parts, self.plan.space.settings.metric))
            self.console.print()

    def _show_tuning(self) -> None:
        """What each arm was given to be tuned; read from the journal, which knows more by now."""
        plan = replace(self.plan)
        if self.as_json:
            found = [{"label": label} | arm.facts() for label, arm in labelled_arms(plan)]
            print_json_event("tuned", arms=found)
        self.console.print(tuning_table(plan))
        self.console.print()

    def publish(self, entries: Sequence[Entry], patience: float) -> None:
        """Make and log the report and the best model, unless they are of these very records.

        Nothing is made of a study without a completed trial, or while MLflow lacks records. What
        goes wrong is told, and changes nothing else: the study itself is done.

        Args:
            entries: of the journal.
            patience: seconds that it may take.
        """
        completed = any(entry.result and entry.result.status == "completed" for entry in entries)
        if not completed or not self.tracker.whole:
            return
        study, problem = self.plan.folder.path, ""
        trials = [entry.planned.work.trial for entry in entries]
        model = all(trial.finetune.task.trains_potential for trial in trials)
        try:
            state = self.tracker.state()
            if not is_current(study, state):
                self._publish(state, patience, model=model)
        except PublishingError as reason:
            problem = str(reason)
        # MLflow and its database or server raise whatever they like.
        except Exception as reason:
            problem = one_line(reason)
        self.published = not problem
        self.fault = is_disk_fault(problem)
        if problem:
            again = by_hand(str(relative_to_cwd(study)), model=model)
            message = f"Report or model upload failed ({problem}); retry with {again}"
            self.console.print(message, style="red")
        if self.as_json:
            page = str(page_of(study)) if self.published else None
            print_json_event("report", page=page, reason=problem)

    def _publish(self, state: dict[str, Any], patience: float, *, model: bool) -> None:
        """Make and log the report, and say which step is under way."""
        study, uri = self.plan.folder.path, self.plan.tracking_uri
        with self.console.status("making the report") as status:

            def show(step: str) -> None:
                status.update(Text(f"making the report: {step}"))

            publish(study, uri, state, model=model, patience=patience, on_step=show)

    def show_places(self) -> None:
        """Where everything is, and how to look at it."""
        folder, logged = self.plan.folder.path, "Runs and curves"
        self.console.print(f"\nAll results: {relative_to_cwd(self.plan.root)}")
        if self.published:
            for line in headline_of(folder):
                self.console.print(line)
            self.console.print(f"Report: {relative_to_cwd(page_of(folder))}")
            logged = "Report, best model, runs and curves"
        else:
            for line in self.plan.warnings:  # The report's first sentences have them, too.
                self.console.print(f"warning: {line}", style="yellow")
            study = shlex.quote(str(relative_to_cwd(folder)))
            self.console.print("Write the report from Parquet tables with:")
            self.console.print(
                f"  python -m analysis.export {study} && python -m analysis.report {study}"
            )
        self.console.print(f"{logged} in MLflow:")
        metric = self.plan.space.settings.metric
        saved = self.tracker.has_view
        page = address(self.tracker.experiment_id, metric, saved=saved)
        for line in _mlflow_commands(self.plan.tracking_uri, page):
            self.console.print(f"  {line}")

    def show_next(self, entries: Sequence[Entry]) -> None:
        """How to confirm what a search has found: a space in the study's folder, and its command.

        A file that repeats the same trial already stays as it is.
        """
        plan = self.plan
        search = plan.space.settings.search
        # No grid repeats settings that change midway; the population has repeated them itself.
        searched = search is not None and search.population is None
        found = confirmation(plan.space, entries) if searched else None
        if found is None:
            return
        path = plan.folder.path / CONFIRM
        if not _repeats(path, found):
            write_bytes(path, found.text(plan.name, _enough_seeds(found.spread)).encode())
        seeds = counted(len(read_yaml(path)["seeds"]), "new seed")
        self.console.print(
            f"\nA search finds candidates. Repeat its winner and baseline on {seeds}:"
        )
        words = ["--space", str(relative_to_cwd(path)), "--name", f"{plan.name[:56]}-confirm"]
        if plan.root != Path.cwd() / "runs":
            words += ["--out", str(relative_to_cwd(plan.root))]
        if plan.tracking_uri != f"sqlite:///{plan.root}/mlflow.db":
            words += ["--tracking-uri", without_password(plan.tracking_uri)]
        self.console.print(f"  python -m study.run {shlex.join(words)}")


BEST = "Best of the population by validation, on the seed that chose it"

CONFIRM = "confirm.yaml"
"""The space that repeats the winner of a search, in the study's folder."""

FEWEST_SEEDS, USUAL_SEEDS, MOST_SEEDS = 6, 8, 20
"""Of a confirmation: so many can differ by ranks alone; where the spread is unknown; at most."""


def _repeats(path: Path, found: Confirmation) -> bool:
    """Whether a file is a space with the trial that is to be confirmed."""
    try:
        known = read_yaml(path)
        return known.get("trial") == found.trial and isinstance(known.get("seeds"), list)
    except (OSError, UserError):
        return False


def _enough_seeds(spread: float) -> int:
    """Seeds that find a change of 5 %, as far as that is affordable and the spread is known."""
    if math.isnan(spread):
        return USUAL_SEEDS
    from analysis.statistics.power import seeds_needed  # Scipy takes long to import.

    needed = seeds_needed(spread, -NEGLIGIBLE)
    return MOST_SEEDS if needed is None else min(max(needed, FEWEST_SEEDS), MOST_SEEDS)


def _mlflow_commands(uri: str, page: str, port: int = MLFLOW_PORT) -> list[str]:
    """How to open a page of the study in MLflow's UI, on this port if it is free."""
    if uri.startswith("http"):
        return [f"{without_password(uri)}/{page}"]
    quiet = "MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"
    store = shlex.quote(without_password(uri))
    port = _free_port(port)
    return [
        f"{quiet} mlflow ui --workers 1 --port {port} --backend-store-uri {store}",
        f"http://127.0.0.1:{port}/{page}",
    ]


def _free_port(wanted: int) -> int:
    """The wanted port, or another if something listens there."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", wanted))
        except OSError:
            tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])
