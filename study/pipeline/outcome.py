"""Outcomes of jobs, read from and written to their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.atomic_io import write_json
from study.core.errors import MALFORMED, UserError
from study.core.hashing import digest
from study.core.records import RESULT, EpochRecord, JobResult, load_result
from study.training.checkpoint import newest_state

if TYPE_CHECKING:
    from study.pipeline.job import Job

LOG = "log.txt"
"""File in the folder of a failed job with the traceback of its worker."""

OUT_OF_MEMORY = "out_of_memory"
"""Fact of a result: the job failed for lack of memory, and would again."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a finished job.

    Args:
        result: how it ended.
        history: one record per epoch.
        weights: file of the selected weights; None if it diverged.
        settings: settings on which the job depended; empty in results of old versions.
    """

    result: JobResult
    history: list[EpochRecord]
    weights: Path | None
    settings: dict[str, Any] = field(default_factory=dict)


def load_history(job: Job, root: Path) -> list[EpochRecord]:
    """Load the records of all epochs of a finished job, or up to its newest checkpoint."""
    outcome = load_outcome(job.folder(root))
    if outcome is not None:
        return outcome.history
    state = newest_state(job.folder(root))
    history = state["history"] if state else []
    return [
        EpochRecord(job.stage, epoch, metrics) for epoch, metrics in enumerate(history, start=1)
    ]


def save_outcome(folder: Path, outcome: Outcome) -> None:
    """Write `result.json`, which marks the job as finished."""
    value = {
        "result": asdict(outcome.result),
        "history": [asdict(record) for record in outcome.history],
        "weights": outcome.weights.name if outcome.weights else None,
        "settings": outcome.settings,
    }
    write_json(folder / RESULT, value | {"digest": digest(value)})


def record_out_of_memory(folder: Path, result: JobResult, size: Mapping[str, Any]) -> None:
    """Record that a job ran out of memory.

    Args:
        folder: of the job.
        result: how it failed.
        size: the resources that it had.
    """
    write_json(folder / "oversized.json", {"result": asdict(result), "size": dict(size)})


def load_out_of_memory(folder: Path, size: Mapping[str, Any]) -> JobResult | None:
    """Load how a job ran out of memory with these resources; None if it did not."""
    try:
        value = json.loads((folder / "oversized.json").read_bytes())
        return JobResult.from_json(value["result"]) if value["size"] == dict(size) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def load_outcome(folder: Path) -> Outcome | None:
    """Load the outcome of a finished job; None if it is unfinished or its file is damaged.

    Raises:
        OSError: if the file exists but cannot be read, which is no reason to run the job again.
    """
    value = load_result(folder)
    if value is None:
        return None
    try:
        weights = folder / value["weights"] if value["weights"] else None
        history = [EpochRecord(**record) for record in value["history"]]
        result = JobResult.from_json(value["result"])
    except MALFORMED:
        return None
    return Outcome(result, history, weights, value.get("settings", {}))


def require_weights(job: Job, root: Path) -> Path:
    """Find the weights of a finished pretraining.

    Raises:
        UserError: if it is not finished.
    """
    outcome = load_outcome(job.folder(root))
    if outcome is None or outcome.weights is None:
        raise UserError(
            f"{job.folder(root)}: no finished pretraining; rerun the study, or set "
            "`pretrain: null` to train from scratch"
        )
    return outcome.weights
