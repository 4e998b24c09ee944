"""How work ended before, so that it is not done again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from study.core.records import RESULT, JobResult
from study.pipeline.job import Job
from study.pipeline.outcome import (
    OUT_OF_MEMORY,
    Outcome,
    load_history,
    load_out_of_memory,
    load_outcome,
    record_out_of_memory,
)
from study.training.checkpoint import delete_checkpoints

logger = logging.getLogger(__name__)


class KnownOutcomes:
    """Looks up work that this study or another one has finished, or that cannot be done here.

    Args:
        root: folder of all work.
        stopped: trials that an earlier run of the study stopped, by key: result and epochs.
        room: cores, GPUs and memory that work may take; what it was too small for is not tried
            again with the same.
    """

    def __init__(
        self, root: Path, stopped: Mapping[str, tuple[JobResult, int]], room: Mapping[str, Any]
    ) -> None:
        self.root, self.stopped, self.room = root, stopped, room

    def find(self, work: Job) -> Outcome | None:
        """How work ended; none if it has to be done."""
        if work.key in self.stopped:
            result, epochs = self.stopped[work.key]
            return Outcome(result, load_history(work, self.root)[:epochs], None)
        folder = work.folder(self.root)
        outcome = load_outcome(folder)
        if outcome is not None:
            # A crash right after the end of the work leaves some.
            delete_checkpoints(folder, work.checkpoints_kept(outcome.result.status))
            return replace(outcome, history=outcome.history[work.inherited :])
        if (folder / RESULT).exists():
            logger.warning("%s: result or weights are damaged; the work is done again", folder)
        oversized = load_out_of_memory(folder, self.room)
        if oversized is None:
            return None
        return Outcome(oversized, load_history(work, self.root)[work.inherited :], None)

    def record(self, work: Job, result: JobResult) -> None:
        """Remember that work needs more memory than there is, if that is how it ended."""
        if result.facts.get(OUT_OF_MEMORY):
            record_out_of_memory(work.folder(self.root), result, self.room)
