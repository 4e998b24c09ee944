"""The fsynced journal of a study: what was planned, what was reported, how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study.conductor import Planned
from study.durable import append_json, read_json_lines
from study.records import EpochRecord, WorkResult
from study.work import Work


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
    result: WorkResult | None

    @property
    def over(self) -> bool:
        """It ended in a way that running it again would not change."""
        return self.result is not None and self.result.status != "failed"


class Journal:
    """Reads the journal at the start and appends what is new; repeated news change nothing.

    Args:
        path: the file; need not exist.
        metric: whose values are kept.
    """

    def __init__(self, path: Path, metric: str) -> None:
        self.path, self.metric = path, metric
        self._planned: dict[int, Planned] = {}
        self._values: dict[str, list[float]] = {}
        self._results: dict[str, WorkResult] = {}
        for event in read_json_lines(path):
            self._apply(event)

    def entries(self) -> dict[int, Entry]:
        """All planned trials by number, with what is known of them."""
        return {
            number: Entry(
                planned,
                list(self._values.get(planned.work.key, [])),
                self._results.get(planned.work.key),
            )
            for number, planned in self._planned.items()
        }

    def stopped(self) -> dict[str, tuple[WorkResult, int]]:
        """Trials that were stopped early, by key: result and epochs; their work is not finished."""
        return {
            key: (result, len(self._values.get(key, [])))
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
                }
            )

    def started(self, work: Work, number: int | None) -> None:
        """Nothing that a later run of the study would need."""

    def recorded(self, work: Work, record: EpochRecord) -> None:
        """Write down the metric of a trial's new epoch."""
        if work.kind == "trial" and record.epoch > len(self._values.get(work.key, [])):
            value = record.metrics[self.metric]
            self._write({"event": "reported", "key": work.key, "value": value})

    def ended(self, work: Work, result: WorkResult) -> None:
        """Write down how a trial ended."""
        if work.kind == "trial" and self._results.get(work.key) != result:
            self._write({"event": "ended", "key": work.key, "result": asdict(result)})

    def _write(self, event: dict[str, Any]) -> None:
        self._apply(event)
        append_json(self.path, event)

    def _apply(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "planned":
                work = Work.from_json(event["work"] | {"key": event["key"]})
                number = event["number"]
                self._planned[number] = Planned(number, work, event["parameters"], event["exempt"])
            case "reported":
                self._values.setdefault(event["key"], []).append(event["value"])
            case "ended":
                self._results[event["key"]] = WorkResult(**event["result"])
