"""How work ended, as its folder tells of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from study.core.atomic_io import write_json
from study.core.errors import UserError
from study.core.hashing import digest
from study.core.records import RESULT, EpochRecord, JobResult, load_result
from study.pipeline.job import Job
from study.training.checkpoint import newest_state

LOG = "log.txt"
"""In the folder of failed work: what its worker said last."""

OUT_OF_MEMORY = "out_of_memory"
"""The fact of a result that says why the same will fail again."""


@dataclass(frozen=True)
class Outcome:
    """What finished work left in its folder.

    Args:
        result: how it ended.
        history: one record per epoch.
        weights: file of the selected weights; none if it diverged.
        settings: that the work depended on; empty if nobody wrote them down.
    """

    result: JobResult
    history: list[EpochRecord]
    weights: Path | None
    settings: dict[str, Any] = field(default_factory=dict)


def load_history(work: Job, root: Path) -> list[EpochRecord]:
    """Records of all epochs of finished work, or of those up to its newest checkpoint."""
    outcome = load_outcome(work.folder(root))
    if outcome is not None:
        return outcome.history
    state = newest_state(work.folder(root))
    history = state["history"] if state else []
    return [
        EpochRecord(work.stage, epoch, metrics) for epoch, metrics in enumerate(history, start=1)
    ]


def save_outcome(folder: Path, outcome: Outcome) -> None:
    """Write `result.json`, which makes the work finished."""
    value = {
        "result": asdict(outcome.result),
        "history": [asdict(record) for record in outcome.history],
        "weights": outcome.weights.name if outcome.weights else None,
        "settings": outcome.settings,
    }
    write_json(folder / RESULT, value | {"digest": digest(value)})


def record_out_of_memory(folder: Path, result: JobResult, size: Mapping[str, Any]) -> None:
    """Remember that work needs more memory than it had.

    Args:
        folder: of the work.
        result: how it failed.
        size: what it had.
    """
    write_json(folder / "oversized.json", {"result": asdict(result), "size": dict(size)})


def load_out_of_memory(folder: Path, size: Mapping[str, Any]) -> JobResult | None:
    """How work failed that had no more memory than there is now; none if it did not."""
    try:
        value = json.loads((folder / "oversized.json").read_bytes())
        return JobResult(**value["result"]) if value["size"] == dict(size) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def load_outcome(folder: Path) -> Outcome | None:
    """The outcome of finished work; none if it is unfinished or its file is damaged.

    Raises:
        OSError: if the file is there and cannot be read, which is no reason to do the work again.
    """
    value = load_result(folder)
    if value is None:
        return None
    weights = folder / value["weights"] if value["weights"] else None
    history = [EpochRecord(**record) for record in value["history"]]
    return Outcome(JobResult(**value["result"]), history, weights, value.get("settings", {}))


def require_weights(work: Job, root: Path) -> Path:
    """The weights of work that others build on.

    Raises:
        UserError: if it is not there.
    """
    outcome = load_outcome(work.folder(root))
    if outcome is None or outcome.weights is None:
        raise UserError(
            f"{work.folder(root)}: no finished pretraining here; run the study again, or set "
            "`pretrain: null` to train from scratch"
        )
    return outcome.weights
