"""Trials at once: what several processes train together in the time of one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any

from study.core.provenance import cores
from tests.benchmarks.variants import Case, Unavailable
from tests.benchmarks.workers import Failed, Timing, Worker

BATCHES = (2, 16)
"""Frames of 81 atoms: a step of the quick profiles' finetuning, and of the paper's."""
ON_GPU = (1, 2, 4, 8)
"""Processes on one GPU."""
SHORTEST = 2.0
"""Seconds of a turn, long beside the time by which the processes begin one after another."""


@dataclass(frozen=True)
class Crowd:
    """Processes that train at once.

    Args:
        processes: how many.
        threads: of each.
    """

    processes: int
    threads: int


def crowds(device: str) -> Iterator[Crowd]:
    """What is compared: more and more processes; on a CPU also one with threads for all cores."""
    if device.startswith("cuda"):
        yield from (Crowd(processes, 1) for processes in ON_GPU)
        return
    here = cores()
    yield Crowd(1, 1)
    for processes in sorted({2, here // 2, here} - {0, 1}):
        if processes <= here:
            yield Crowd(1, processes)
            yield Crowd(processes, 1)


def measure(
    models: Sequence[str],
    variants: Sequence[str],
    device: str,
    rounds: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row for each crowd of each case."""
    rows = []
    for model in models:
        for batch in BATCHES:
            case = Case(model, "energy_forces", 27, batch, device=device)
            for variant in variants:
                for row in _rows(case, variant, rounds):
                    rows.append(
                        {"model": model, "batch": batch, "variant": variant, "device": device} | row
                    )
                    say(_line(rows[-1]))
    return rows


def _rows(case: Case, variant: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Crowds take turns; each worker belongs to one of them."""
    with ExitStack() as ends:
        found: dict[Crowd, list[list[Timing]] | str] = {}
        ready: dict[Crowd, list[Worker]] = {}
        for crowd in crowds(case.device):
            workers = [ends.enter_context(closing(Worker(variant))) for _ in range(crowd.processes)]
            ready[crowd], found[crowd] = workers, []
            try:
                for worker in workers:
                    worker.prepare(case, crowd.threads)
            except (Failed, Unavailable) as reason:
                found[crowd] = str(reason)
        for _ in range(rounds):
            for crowd, turns in found.items():
                if isinstance(turns, str):
                    continue
                try:
                    turns.append(_together(ready[crowd]))
                except Failed as reason:
                    found[crowd] = str(reason)
        for crowd, turns in found.items():
            yield asdict(crowd) | _summary(case, turns)


def _together(workers: Sequence[Worker]) -> list[Timing]:
    """A turn of each, all at the same time."""
    for worker in workers:
        worker.begin_turn(SHORTEST)
    return [worker.end_turn() for worker in workers]


def _summary(case: Case, turns: list[list[Timing]] | str) -> dict[str, Any]:
    if isinstance(turns, str):
        return {"reason": turns}
    return {
        "samples_per_second": statistics.median(
            sum(case.batch / turn.wall for turn in together) for together in turns
        ),
        "peak": sum(turn.peak for turn in turns[-1]),
    }


def _line(row: dict[str, Any]) -> str:
    where = f"packing: {row['model']} {row['variant']}, {row['batch']} frames"
    crowd = f"{row['processes']} × {row['threads']}"
    if "reason" in row:
        return f"{where}, {crowd}: {row['reason']}"
    return f"{where}, {crowd}: {row['samples_per_second']:.3g} samples/s"
