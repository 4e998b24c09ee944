"""A search as an Optuna study, for Optuna's dashboard and `optuna.load_study`.

The study's own journal is the truth; this storage follows it, and nothing is read from it but what
it has already.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.atomic_io import length_of_complete_lines, open_unlinked
from study.core.errors import one_line
from study.core.records import EpochRecord, JobResult, without_password
from study.pipeline.job import Job
from study.scheduling.journal import Entry, Journal
from study.scheduling.protocols import Planned
from study.space.search_space import Space

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

FILE = "optuna.log"
"""Optuna's journal file in the folder of a study."""

logger = logging.getLogger(__name__)


@dataclass
class Written:
    """What the storage has of a trial.

    Args:
        trial_id: Optuna's id.
        epochs: with an intermediate value.
        over: whether it has its final state.
        failed: whether that is a failure, after which the trial may run again.
    """

    trial_id: int
    epochs: int = 0
    over: bool = False
    failed: bool = False


class OptunaRecords:
    """Keeps the proposals of a search in an Optuna storage, as they run.

    Trials have the parameters that vary, the metric after each epoch as intermediate values, and
    user attributes: `number`, `arm`, `seed`, `key` (MLflow's tag `study.key`), `status`, `reason`.
    A trial that diverged or failed is `FAIL`, one that was stopped early `PRUNED`. Of several
    objectives a trial has its values, and none by epoch, which Optuna does not take.

    Args:
        space: with a `search` block.
        name: of the study.
        journal: of the study, which hears of every event first.
        place: URL of a database, or the folder of the study, which gets a journal file.
    """

    def __init__(self, space: Space, name: str, journal: Journal, place: str | Path) -> None:
        self.space, self.name, self.journal, self.place = space, name, journal, place
        self.objectives = (space.settings.search and space.settings.search.objectives) or []
        self.numbers: dict[str, int] = {}
        self.written: dict[int, Written] = {}
        self.storage: BaseStorage | None = None
        self.study_id = -1

    def open(self) -> None:
        """Open or make the storage, and write what it lacks; Optuna takes seconds to import."""
        try:
            self.storage = _storage(self.place)
            self._find()
            for number in self.journal.entries():
                self._follow(number)
        # A database raises whatever it likes, and the study goes on without it.
        except Exception as problem:
            self._give_up(problem)

    def planned(self, planned: Planned) -> None:
        """Add a proposal."""
        self.numbers[planned.work.key] = planned.number
        self._note(planned.work)

    def started(self, work: Job, number: int | None) -> None:
        """Add a trial that runs again after a failure."""
        if number is not None:
            self.numbers[work.key] = number
        self._note(work)

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """Add an intermediate value."""
        del record
        self._note(work)

    def ended(self, work: Job, result: JobResult) -> None:
        """Set the final state."""
        del result
        self._note(work)

    def _note(self, work: Job) -> None:
        number = self.numbers.get(work.key)
        if self.storage is None or number is None:
            return
        try:
            self._follow(number)
        except Exception as problem:
            self._give_up(problem)

    def _give_up(self, problem: Exception) -> None:
        """Do without the storage: it is for people to look at, and the next run completes it."""
        place = without_password(str(self.place))
        logger.warning("Optuna storage %s: %s; the study goes on", place, one_line(problem))
        self.storage = None

    def _find(self) -> None:
        """Take over what the storage has."""
        from optuna import create_study
        from optuna import logging as optuna_logging
        from optuna.trial import TrialState

        assert self.storage is not None
        optuna_logging.set_verbosity(optuna_logging.WARNING)
        study = create_study(
            study_name=self.name,
            storage=self.storage,
            directions=["minimize"] * len(self.objectives or [self.journal.metric]),
            load_if_exists=True,
        )
        study.set_user_attr("question", self.space.settings.question)
        study.set_user_attr("metric", self.journal.metric)
        if self.objectives:
            study.set_metric_names(self.objectives)
        self.study_id = self.storage.get_study_id_from_name(self.name)
        for trial in study.get_trials(deepcopy=False):
            number = trial.user_attrs.get("number")
            if number is not None:
                trial_id = self._trial_id(trial.number)
                epochs, over = len(trial.intermediate_values), trial.state.is_finished()
                failed = trial.state == TrialState.FAIL
                self.written[number] = Written(trial_id, epochs, over, failed)

    def _trial_id(self, number: int) -> int:
        assert self.storage is not None
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)

    def _follow(self, number: int) -> None:
        """Write what the journal has of a trial, and the storage has not."""
        from optuna.trial import TrialState

        entry = self.journal.entry(number)
        assert self.storage is not None
        if entry.planned.exempt:
            return
        trial = self.written.get(number)
        if trial is None or (trial.failed and entry.over and not _failed(entry)):
            trial = self.written[number] = self._added(entry)
        if trial.over:
            return
        new = [] if self.objectives else entry.values[trial.epochs :]
        for epoch, value in enumerate(new, start=trial.epochs + 1):
            self.storage.set_trial_intermediate_value(trial.trial_id, epoch, value)
        trial.epochs = max(trial.epochs, len(entry.values))
        if entry.result is not None:
            told = {"status": entry.result.status, "reason": entry.result.reason}
            for name, text in told.items():
                self.storage.set_trial_user_attr(trial.trial_id, name, text)
            state, values = TrialState.FAIL, None
            if entry.result.status == "completed":
                found = [entry.result.metrics[name] for name in self.objectives]
                state, values = TrialState.COMPLETE, found or [min(entry.values)]
            elif entry.result.status == "stopped":
                state, values = TrialState.PRUNED, entry.values[-1:]
            self.storage.set_trial_state_values(trial.trial_id, state, values)
            trial.over, trial.failed = True, state == TrialState.FAIL

    def _added(self, entry: Entry) -> Written:
        """A new trial of the storage, running."""
        from optuna.trial import FixedTrial, TrialState, create_trial

        assert self.storage is not None
        parameters, work = entry.planned.parameters, entry.planned.work
        fixed = FixedTrial(parameters)
        self.space.propose(fixed)
        attributes = {
            "number": entry.planned.number,
            "arm": work.label.rpartition(",")[0],
            "seed": work.trial.seed,
            "key": work.key,
        }
        trial = create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions=fixed.distributions,
            user_attrs=attributes,
        )
        return Written(self.storage.create_new_trial(self.study_id, trial))


def _failed(entry: Entry) -> bool:
    """Whether Optuna's state of the trial is a failure, which it cannot take back."""
    return entry.result is None or entry.result.status not in ("completed", "stopped")


def _storage(place: str | Path) -> BaseStorage:
    """The database of a URL, or the journal file in a folder."""
    from optuna.storages import get_storage
    from optuna.storages.journal import BaseJournalBackend, JournalStorage

    if isinstance(place, str):
        return get_storage(place)

    class JournalFile(BaseJournalBackend):
        """The file of Optuna's `JournalFileBackend`, with one writer, which follows no link.

        The lock of the study keeps other writers away, so that nothing has to be removed after
        its process was killed.
        """

        def __init__(self, path: Path) -> None:
            self.path, self.first = path, 0
            # A process that was killed may have left the beginning of a line.
            with open_unlinked(path, "ab") as file:
                file.truncate(length_of_complete_lines(path))
            lines = path.read_bytes().splitlines()
            self.unread: list[dict[str, Any]] = [json.loads(line) for line in lines]

        def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
            """What was not read before; the storage above reads on from where it was."""
            self.unread = self.unread[log_number_from - self.first :]
            self.first = log_number_from
            return self.unread

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            """Add lines."""
            lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
            with open_unlinked(self.path, "ab") as file:
                file.write("".join(lines).encode())
            self.unread += logs

    return JournalStorage(JournalFile(place / FILE))
