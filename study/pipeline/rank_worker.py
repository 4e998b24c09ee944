"""A process that computes a part of every training step of a trial, as `study.pipeline.ranks` asks.

It has no state but what its settings say: weights come with every step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import torch

from study.core.errors import one_line
from study.pipeline.job import Job
from study.pipeline.ranks import join_group
from study.pipeline.setup import peak_memory, set_up
from study.space.plugin_configs import realized
from study.training.energy_meter import EnergyMeter
from study.training.parallel.shared_engine import BrokenGroupError, build_engine
from study.training.program_cache import user_store
from study.training.runtime import configure_performance, configure_process

Commands = SimpleQueue[dict[str, Any]]


def main(rank: int) -> None:
    """Do what the standard input says, until it closes."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # What code prints must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands: Commands = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, commands), daemon=True).start()
    try:
        _work(rank, commands.get(), commands, partial(_say, answers))
    except BrokenGroupError:
        os._exit(1)
    except Exception as problem:
        memory = isinstance(problem, MemoryError | torch.OutOfMemoryError)
        failed = one_line(problem)
        told = {"rank": rank, "failed": failed, "memory": memory}
        _say(answers, told | {"traceback": traceback.format_exc()})
        os._exit(1)


def _listen(lines: IO[str], commands: Commands) -> None:
    """Pass commands on; their end is that of this process, also within a step."""
    for line in lines:
        commands.put(json.loads(line))
    os._exit(0)


def _say(answers: IO[str], what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def _work(rank: int, order: dict[str, Any], commands: Commands, say: Any) -> None:
    device, workers = order["device"], order["workers"]
    configure_process(order["threads"], device, deterministic=order["deterministic"])
    job, root = Job.from_json(order["job"]), Path(order["root"])
    configure_performance(torch.device(device), job.trial.model.hidden)
    setup = set_up(job, realized(job.trial, root), root, Path(order["frames"]), device)
    steps, frames = setup.steps(job.trial.seed), len(setup.parts[0])
    say({})
    join_group(Path(order["store"]), rank, workers, device)
    engine = build_engine(setup.model, setup.stage, frames, user_store(), rank, workers)
    setup.model.train()
    meter, clock = EnergyMeter(torch.device(device)), time.process_time()
    batches = lru_cache(maxsize=1)(steps.batches)
    while True:
        command = commands.get()
        if command:
            epoch, step = command["epoch"], command["step"]
            engine.backward(steps.terms(epoch, step, batches(epoch)[step]))
            continue
        before, clock = clock, time.process_time()
        say(
            {
                "cpu_seconds": clock - before,
                "joules": meter.lap(),
                "peak_memory_mb": peak_memory(torch.device("cpu")),
                "gpu_memory_mb": peak_memory(torch.device(device)),
            }
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
