"""Training steps: ours against the textbook's, and against the arithmetic that they need."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.variants import BASELINE, STAGES, VARIANTS, Case, Unavailable
from tests.benchmarks.workers import Failed, Timing, Worker

SIZES = {"16 × 81": (27, 16), "10 × 774": (258, 10)}
"""Frames × atoms of the paper's two waters: molecules, batch."""
REFERENCE = "eager"
"""The variant whose matrix products are counted, and whose rate sets the floor."""


@dataclass(frozen=True)
class Choice:
    """What to time.

    Args:
        models, stages, sizes, threads, variants: every combination of these.
        rounds: turns of each variant.
        device: torch device.
    """

    models: Sequence[str] = ("egnn", "gns", "forcenet")
    stages: Sequence[str] = STAGES
    sizes: Sequence[str] = tuple(SIZES)
    threads: Sequence[int] = (1, 2)
    variants: Sequence[str] = tuple(VARIANTS)
    rounds: int = 7
    device: str = "cpu"

    def cases(self) -> Iterator[tuple[str, Case, int]]:
        """Size, case and threads."""
        for size in self.sizes:
            molecules, batch = SIZES[size]
            for model in self.models:
                for stage in self.stages:
                    for threads in self.threads:
                        case = Case(model, stage, molecules, batch, device=self.device)
                        yield size, case, threads


def measure(choice: Choice, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for every case: what each variant takes, and the floor."""
    workers = {name: Worker(name) for name in choice.variants}
    rows = []
    try:
        for size, case, threads in choice.cases():
            row = _row(workers, case, threads, choice.rounds)
            rows.append({"size": size, "threads": threads, **asdict(case), **row})
            say(_line(rows[-1]))
    finally:
        for worker in workers.values():
            worker.close()
    return rows


def _row(workers: dict[str, Worker], case: Case, threads: int, rounds: int) -> dict[str, Any]:
    """Variants take turns; each is compared with the baseline round by round."""
    prepared, missing = {}, {}
    for name in list(workers):
        try:
            prepared[name] = workers[name].prepare(case, threads)
        except Unavailable as reason:
            missing[name] = str(reason)
        except Failed as reason:
            missing[name] = str(reason)
            workers[name].close()
            workers[name] = Worker(name)
    turns: dict[str, list[Timing]] = {name: [] for name in prepared}
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in prepared}
    for _ in range(rounds):
        for name in prepared:
            turns[name].append(workers[name].turn())
            rates[name].append(workers[name].rate())
    found: dict[str, Any] = {
        "variants": {name: _summary(turns[name], case.batch) for name in prepared},
        "missing": missing,
    }
    for name in prepared:
        found["variants"][name]["prepared"] = prepared[name]
        if BASELINE in prepared:
            for clock in ("cpu", "wall"):
                pairs = zip(turns[BASELINE], turns[name], strict=True)
                ratios = [getattr(base, clock) / getattr(mine, clock) for base, mine in pairs]
                found["variants"][name][f"{clock}_speedup"] = statistics.median(ratios)
    for name in prepared:
        found["variants"][name]["products"] = {
            kind: statistics.median(each[kind] for each in rates[name]) for kind in rates[name][0]
        }
    if REFERENCE in prepared:
        products = found["variants"][REFERENCE]["products"]
        found["floor"] = _floor(workers[REFERENCE].flops(), products)
    return found


def _summary(turns: list[Timing], batch: int) -> dict[str, Any]:
    cpu, wall = ([getattr(turn, clock) for turn in turns] for clock in ("cpu", "wall"))
    return {
        "cpu": statistics.median(cpu),
        "wall": statistics.median(wall),
        "cpu_range": [min(cpu), max(cpu)],
        "wall_range": [min(wall), max(wall)],
        "samples_per_second": batch / statistics.median(wall),
        "samples_per_cpu_second": batch / statistics.median(cpu),
        "steps": sum(turn.steps for turn in turns),
        "peak": turns[-1].peak,
    }


def _floor(flops: int, rate: dict[str, float]) -> dict[str, float]:
    """Seconds that the matrix products of a step take at the rate measured beside it."""
    return {"flops": flops, "cpu": flops / rate["cpu"], "wall": flops / rate["wall"]}


def _line(row: dict[str, Any]) -> str:
    parts = [
        f"{name} {1000 * found['cpu']:.0f} ms CPU ({found.get('cpu_speedup', 1):.2f} ×)"
        for name, found in row["variants"].items()
    ]
    if "floor" in row:
        parts.append(f"floor {1000 * row['floor']['cpu']:.0f} ms")
    parts += [f"{name}: {reason}" for name, reason in row["missing"].items()]
    where = f"{row['model']} {row['stage']} {row['size']}, {row['threads']} threads"
    return f"{where}: {'; '.join(parts)}"
