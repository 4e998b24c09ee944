"""The events of a study as lines of JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.protocols import Planned


class JsonLines:
    """Prints every event as a JSON line on the standard output."""

    def say(self, phase: str) -> None:
        """Print nothing: what comes before the first trial is no event."""

    def planned(self, planned: Planned) -> None:
        """A trial has got its number."""
        work = planned.work
        facts = {"number": planned.number, "parameters": planned.parameters}
        marked: dict[str, Any] = {"tuning": True} if planned.tuning else {}
        if planned.member is not None:
            marked["member"] = asdict(planned.member)
        print_json_event("planned", work, **facts, **marked)

    def started(self, work: Job, number: int | None) -> None:
        """Work has begun, or was found finished."""
        print_json_event("started", work, number=number, stage=work.stage, epochs=work.epochs)

    def recorded(self, work: Job, record: EpochRecord) -> None:
        """An epoch is done; its metrics are in eV and Å."""
        print_json_event(
            "epoch", work, stage=record.stage, epoch=record.epoch, metrics=record.metrics
        )

    def ended(self, work: Job, result: JobResult) -> None:
        """How work ended."""
        print_json_event("ended", work, **asdict(result))


def print_json_event(event: str, work: Job | None = None, **facts: Any) -> None:
    """Print one JSON line."""
    known = {"key": work.key, "kind": work.kind, "label": work.label} if work else {}
    sys.stdout.write(json.dumps({"event": event, **known, **facts}) + "\n")
    sys.stdout.flush()
