"""The fsynced journal of a study: what was planned, what was reported, how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from study.core.atomic_io import append_json, read_json_lines
from study.core.errors import MALFORMED, UserError, one_line
from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.protocols import Member, Planned


@dataclass(frozen=True)
class Entry:
    """A planned trial as the journal knows it.

    Args:
        planned: what was planned.
        values: its metric after each epoch.
        result: how it ended; none if it has not.
    """

    planned: Planned
    values: list[float]
    result: JobResult | None

    @property
    def over(self) -> bool:
        """It ended in a way that running it again would not change."""
        return self.result is not None and self.result.status != "failed"


class Journal:
    """Reads the journal at the start and appends what is new; repeated news change nothing.

    Args:
        path: the file; need not exist.
        metric: whose values are kept.

    Raises:
        UserError: if another version of the code wrote it, whose settings this one does not know.
    """

    def __init__(self, path: Path, metric: str) -> None:
        self.path, self.metric = path, metric
        self._planned: dict[int, Planned] = {}
        self._values: dict[str, dict[int, float]] = {}
        self._results: dict[str, JobResult] = {}
        self.has_started = False
        """Some work has begun."""
        for event in read_json_lines(path):
            try:
                self._apply(event)
            except MALFORMED as problem:
                reason = " ".join(str(problem).splitlines()[:3]) or one_line(problem)
                raise UserError(
                    f"{path}: was written by another version of the code ({reason}); check out "
                    "the commit that MLflow's tag `study.git` names"
                ) from None

    def entries(self) -> dict[int, Entry]:
        """All planned trials by number, with what is known of them."""
        return {number: self.entry(number) for number in self._planned}

    def entry(self, number: int) -> Entry:
        """One planned trial, with what is known of it."""
        planned = self._planned[number]
        key = planned.work.key
        return Entry(planned, self._known(planned.work), self._results.get(key))

    def stopped(self) -> dict[str, tuple[JobResult, int]]:
        """Trials that were stopped early, by key: result and epochs; their work is not finished."""
        return {
            key: (result, max(self._values.get(key, {}), default=0))
            for key, result in self._results.items()
            if result.status == "stopped"
        }

    def planned(self, planned: Planned) -> None:
        """Write down a new trial."""
        if planned.number not in self._planned:
            self._write(
                {
                    "event": "planned",
                    "number": planned.number,
                    "key": planned.work.key,
                    "work": planned.work.to_json(),
                    "parameters": planned.parameters,
                    "exempt": planned.exempt,
                    **({"tuning": True} if planned.tuning else {}),
                    **({"sampler": planned.sampler_state} if planned.sampler_state else {}),
                    **({"member": asdict(planned.member)} if planned.member else {}),
                }
            )
            # The scheduler holds this one; a second copy of each would take 8 KB a trial.
            self._planned[planned.number] = planned

    def started(self, work: Job, number: int | None) -> None:
        """Write down that some work has begun, which the study's results may rest on."""
        del work, number
        if not self.has_started:
            self._write({"event": "started"})

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """Write down the metric of a trial's new epoch."""
        if work.kind == "trial" and record.epoch not in self._values.get(work.key, {}):
            value = record.metrics[self.metric]
            event = {"event": "reported", "key": work.key, "epoch": record.epoch, "value": value}
            self._write(event)

    def ended(self, work: Job, result: JobResult) -> None:
        """Write down how a trial ended."""
        if work.kind == "trial" and self._results.get(work.key) != result:
            self._write({"event": "ended", "key": work.key, "result": asdict(result)})

    def _known(self, work: Job) -> list[float]:
        """A trial's metric after each epoch, as far as no line of the journal is damaged."""
        values = self._values.get(work.key, {})
        epochs = takewhile(values.__contains__, count(work.inherited + 1))
        return [values[epoch] for epoch in epochs]

    def _write(self, event: dict[str, Any]) -> None:
        self._apply(event)
        append_json(self.path, event)

    def _apply(self, event: dict[str, Any]) -> None:
        # Older versions wrote no start.
        self.has_started = self.has_started or event["event"] != "planned"
        match event["event"]:
            case "planned":
                work = Job.from_json(event["work"] | {"key": event["key"]})
                number, tuning = int(event["number"]), event.get("tuning", False)
                member = event.get("member")
                self._planned[number] = Planned(
                    number,
                    work,
                    dict(event["parameters"]),
                    event["exempt"],
                    tuning,
                    sampler_state=event.get("sampler", {}),
                    member=Member(**member) if member else None,
                )
            case "reported":
                values = self._values.setdefault(event["key"], {})
                # Older versions wrote every epoch, and no number.
                values[int(event.get("epoch", len(values) + 1))] = float(event["value"])
            case "ended":
                self._results[event["key"]] = JobResult.from_json(event["result"])
