"""Where a study stands, by its journal, its locks and its checkpoints; read, never changed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from study.core.atomic_io import is_locked
from study.core.records import FINAL_STATUSES
from study.pipeline.job import Job
from study.pipeline.outcome import LOG, load_outcome
from study.planning.arms import named_member, names_of, searched_name
from study.planning.plan import Plan
from study.planning.study_dir import StudyDir
from study.scheduling.early_stopping_audit import audit_of
from study.scheduling.journal import Entry, Journal
from study.scheduling.objectives import front_of, keeps_limits
from study.scheduling.proposals.optuna_search import OptunaProposals
from study.scheduling.proposals.population import PopulationProposals
from study.scheduling.protocols import Planned, Proposals
from study.space.settings import Search
from study.space.trial import Trial

LINES = 5
"""Lines of a log that are shown."""


@dataclass(frozen=True)
class TrialState:
    """Where a trial stands.

    Args:
        number: place in the plan.
        label: the trial in a few words.
        status: completed, stopped, diverged, failed, running, pretraining or waiting.
        epoch: epochs finished, of finetuning, or of pretraining while that runs.
        epochs: of how many.
        value: the study's metric after the last epoch; none before the first.
        best: its lowest value.
        reason: why the trial did not complete.
        folder: its checkpoints, weights and result.
        tuning: it only chooses values for its arm.
        objectives: what a completed trial has of each objective, and of what is limited.
        kept: it has at most what the search allows, as far as that is known.
    """

    number: int
    label: str
    status: str
    epoch: int
    epochs: int
    value: float | None
    best: float | None
    reason: str
    folder: str
    tuning: bool = False
    objectives: dict[str, float] = field(default_factory=dict)
    kept: bool = True

    @property
    def log(self) -> list[str]:
        """The last lines of its log, if it left one."""
        try:
            return (Path(self.folder) / LOG).read_text(errors="replace").splitlines()[-LINES:]
        except OSError:
            return []


@dataclass(frozen=True)
class StudyState:
    """Where a study stands.

    Args:
        plan: the study as it was last run.
        question: what it wants to know.
        metric: finetuning metric by which trials are ranked.
        command: that runs it, or an empty text if an older version ran it.
        running: its driver is at work.
        quiet: seconds since the journal's last entry.
        trials: all that are planned so far.
        compute: spent on finished trials, s.
        all_planned: no more trials are to come, however often it is resumed.
        front: the trials on the Pareto front of several objectives, by the first one.
        repeats: numbers of the trials that repeat members of a population.
        audit: of the stopped trials that shall be finished, how many are, and how many there are.
    """

    plan: Plan = field(repr=False)
    question: str
    metric: str
    command: str
    running: bool
    quiet: float
    trials: list[TrialState]
    compute: float
    all_planned: bool
    audit: tuple[int, int] = (0, 0)
    front: list[TrialState] = field(default_factory=list)
    repeats: frozenset[int] = frozenset()

    @cached_property
    def counts(self) -> Counter[str]:
        """Trials by status."""
        return Counter(trial.status for trial in self.trials)

    @property
    def done(self) -> int:
        """Trials that are over."""
        return sum(self.counts[status] for status in FINAL_STATUSES)

    @property
    def total(self) -> int:
        """All trials there will be; of a search that is not over, at most."""
        if self.all_planned and self.done == len(self.trials):
            return self.done
        return max(self.plan.trials, len(self.trials))

    @property
    def word(self) -> str:
        """The state in a word."""
        if self.running:
            return "running"
        if self.done == len(self.trials) and self.all_planned:
            finished, asked = self.audit
            return "done" if finished == asked else "interrupted"
        return "failed" if self.all_planned and self._all_ended else "interrupted"

    @property
    def _all_ended(self) -> bool:
        return self.done + self.counts["failed"] == len(self.trials)

    @property
    def best(self) -> TrialState | None:
        """The completed trial with the lowest metric that keeps the limits of the search.

        Of a population it is one that the search has chosen, not a repeat of it.
        """
        chosen = [trial for trial in self.trials if trial.number not in self.repeats]
        reported = [trial for trial in chosen if not trial.tuning]
        completed = [trial for trial in reported if trial.status == "completed" and trial.kept]
        return min(completed, key=lambda trial: trial.best or 0.0, default=None)


def study_state(root: Path, name: str) -> StudyState:
    """Where a study stands.

    Args:
        root: folder of all work.
        name: of the study.

    Raises:
        UserError: if there is no such study.
    """
    folder = StudyDir(root, name)
    plan = Plan(folder.recorded_space(), root, name, "")
    metric = plan.space.settings.metric
    entries = Journal(folder.journal, metric).entries()
    search = plan.space.settings.search
    searched = [name for each in entries.values() for name in each.planned.searched]
    names = tuple(dict.fromkeys(searched))
    states = {
        number: _measured(_trial_state(number, entry, root, names), entry, search)
        for number, entry in entries.items()
    }
    best = front_of(entries, search)
    labels = names_of(entry.planned.work for entry in entries.values()) if best else {}
    named = [(each.planned.number, labels[each.planned.work.key]) for each in best]
    front = [replace(states[number], label=label) for number, label in named]
    written = folder.journal.stat().st_mtime if folder.journal.exists() else time.time()
    return StudyState(
        plan,
        plan.space.settings.question,
        metric,
        folder.command(),
        is_locked(folder.lock),
        time.time() - written,
        list(states.values()),
        sum(map(_seconds, entries.values())),
        _all_planned(plan, entries),
        _audit(plan, folder.audit(), entries),
        front,
        frozenset(n for n, each in entries.items() if each.planned.member and each.planned.exempt),
    )


def _all_planned(plan: Plan, entries: dict[int, Entry]) -> bool:
    """Whether the journal has all trials that will ever be; of old searches, the first ones."""
    search, works = plan.space.settings.search, [each.planned.work for each in entries.values()]
    if search is None:
        return len(entries) >= plan.trials
    proposals = [each for each in entries.values() if not each.planned.exempt]
    is_over = len(proposals) >= search.trials and all(each.over for each in proposals)
    # With settings that an older version did not know, a search would not find its trials.
    if works and all(replace(work).key == work.key for work in works):
        if search.population is not None:
            return _ends(PopulationProposals(plan.space, _like(works), entries), entries)
        if is_over:
            return _ends(OptunaProposals(plan.space, _like(works), 1, entries), entries)
    return len(entries) >= search.trials * plan.counts.generations + bool(search.population)


def _ends(source: Proposals, entries: dict[int, Entry]) -> bool:
    """Whether all that a search plans has ended, so that nothing else comes."""
    while (planned := source.next()) is not None:
        entry = entries.get(planned.number) if isinstance(planned, Planned) else None
        if entry is None or entry.result is None:
            return False
        source.ended(entry.planned.number, entry.result, entry.values)
    return True


def _like(works: Sequence[Job]) -> Callable[[Trial], Job]:
    """Makes jobs of trials, on the data of known jobs."""
    alone = {each.trial.datasets[:1]: replace(each, pretraining_data_hash=None) for each in works}
    known = alone | {work.trial.datasets: work for work in works}
    return lambda trial: replace(known.get(trial.datasets, works[0]), trial=trial)


def _seconds(entry: Entry) -> float:
    """Compute of a finished trial; the test of a chain of parts repeats what these have cost."""
    work = entry.planned.work
    if entry.result is None or (work.segment is not None and not work.is_part):
        return 0.0
    return entry.result.metrics.get("seconds", 0.0)


def _measured(state: TrialState, entry: Entry, search: Search | None) -> TrialState:
    """The state of a trial with its objectives and limits."""
    if search is None or entry.result is None:
        return state
    metrics = entry.result.metrics
    found = {name: metrics[name] for name in search.measured if name in metrics}
    return replace(state, objectives=found, kept=keeps_limits(entry.result, search))


def _audit(plan: Plan, size: int, entries: dict[int, Entry]) -> tuple[int, int]:
    """How many trials of an audit are finished, of how many."""
    if not size:
        return 0, 0
    sample = audit_of(plan.name, plan.space.settings, entries, size).sample
    outcomes = [load_outcome(planned.work.folder(plan.root)) for planned in sample]
    return sum(outcome is not None for outcome in outcomes), len(sample)


def _trial_state(number: int, entry: Entry, root: Path, searched: Sequence[str]) -> TrialState:
    work, pretraining = entry.planned.work, entry.planned.work.pretraining
    shown, status, reason = work, "waiting", ""
    epoch = len(entry.values) + work.inherited * bool(entry.values)
    if entry.over or (entry.result and not _is_busy(work, root)):
        assert entry.result is not None
        status, reason = entry.result.status, entry.result.reason
    elif _is_busy(work, root):
        status = "running"
    elif pretraining is not None and _is_busy(pretraining, root):
        shown, epoch, status = pretraining, _newest_epoch(pretraining, root), "pretraining"
    values = entry.values
    return TrialState(
        number,
        _label(entry.planned, searched),
        status,
        epoch,
        shown.epochs,
        values[-1] if values else None,
        min(values, default=None),
        reason,
        str(work.folder(root)),
        entry.planned.tuning,
    )


def _label(planned: Planned, searched: Sequence[str]) -> str:
    """The trial in a few words, with what it tries if it only chooses or a search varies it."""
    if planned.member is not None:
        return named_member(planned)
    if not planned.tuning:
        return searched_name(planned.work, searched)
    tried = [f"{name} {value}" for name, value in planned.parameters.items()]
    return ", ".join([planned.work.label.rpartition(", seed ")[0], *tried, "tuning"])


def _is_busy(work: Job, root: Path) -> bool:
    return is_locked(work.folder(root) / "lock")


def _newest_epoch(work: Job, root: Path) -> int:
    """By the names of the checkpoints: a worker may delete them at any moment."""
    names = [path.name for path in work.checkpoints(root).glob("epoch-*.safetensors")]
    newest = max((int(name.split("-")[1]) for name in names), default=0)
    return min(newest, work.epochs)
