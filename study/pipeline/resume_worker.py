"""A process that does a job and may kill itself at a step, to verify that work resumes."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.training import loop
from study.training.runtime import configure_process


def main() -> None:
    """Do the work of an order, or part of it."""
    order = json.load(sys.stdin)
    configure_process(order["threads"], order["device"], deterministic=order["deterministic"])
    loop.CHECKPOINT_EVERY = 0.0
    left = order["die_at"] or -1

    def dies() -> bool:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    job = Job.from_json(order["work"])
    for piece in filter(None, (job.pretraining, job)):
        root, frames = Path(order["root"]), Path(order["frames"])
        for _ in run_job(piece, root, frames, order["device"], dies, order["workers"]):
            pass


if __name__ == "__main__":
    main()
