"""Memory and time of a step against atoms, batch and edges, each point in a process of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import psutil

from tests.benchmarks.variants import Case, Unavailable
from tests.benchmarks.workers import Failed, Worker

MOLECULES = (17, 167, 1667, 16_667)
"""Of each of two frames: 10² … 10⁵ atoms; the last one only if asked for. Compiled code wants two
frames at least."""
BATCHES = (2, 4, 16, 64)
"""Frames of 81 atoms."""
CUTOFFS = (2.4, 3.0, 3.7, 4.6)
"""Å, in two frames of 774 atoms: edges grow with the cube, to 40 per atom."""
LONGEST = 60.0
"""Seconds that preparing a point or a step of it may take."""
SHARE = 0.8
"""Of the memory free at the moment that a process may take."""


def points(model: str, device: str, *, quick: bool, full: bool) -> Iterator[tuple[str, list[Case]]]:
    """The three series of a model, small points first."""
    base = Case(model, "energy_forces", 27, 2, device=device)
    sizes = MOLECULES[:2] if quick else MOLECULES if full else MOLECULES[:3]
    yield "atoms", [replace(base, molecules=molecules) for molecules in sizes]
    yield "batch", [replace(base, batch=batch) for batch in BATCHES[: 2 if quick else None]]
    wide = replace(base, molecules=258)
    yield "edges", [replace(wide, cutoff=cutoff) for cutoff in CUTOFFS[: 2 if quick else None]]


def measure(
    models: Sequence[str],
    variants: Sequence[str],
    device: str,
    say: Callable[[str], None],
    *,
    quick: bool,
    full: bool,
) -> list[dict[str, Any]]:
    """A row for every point of every series; a series ends where memory or patience does."""
    rows = []
    for model in models:
        _compile(Case(model, "energy_forces", 27, 2, device=device), variants)
        for series, cases in points(model, device, quick=quick, full=full):
            for variant in variants:
                for case in cases:
                    row = {"series": series, "variant": variant, "model": model}
                    row |= {"atoms": case.atoms * case.batch, "batch": case.batch}
                    row |= {"cutoff": case.cutoff, **_point(case, variant)}
                    rows.append(row)
                    say(_line(row))
                    if "reason" in row:
                        break
    return rows


def _compile(case: Case, variants: Sequence[str]) -> None:
    """Fill the store of compiled code, which takes longer than a point may."""
    for variant in variants:
        worker = Worker(variant)
        try:
            worker.prepare(case, 1)
        except (Failed, Unavailable):
            pass  # Its points will say so.
        finally:
            worker.close()


def exponent(rows: Sequence[dict[str, Any]], abscissa: str, ordinate: str) -> float:
    """Slope of the last two points on logarithmic axes; NaN if there are none."""
    done = [row for row in rows if "reason" not in row][-2:]
    if len(done) < 2 or done[0][abscissa] == done[1][abscissa]:
        return math.nan
    ratios = [math.log(done[1][name] / done[0][name]) for name in (ordinate, abscissa)]
    return ratios[0] / ratios[1]


def _point(case: Case, variant: str) -> dict[str, Any]:
    on_cpu = not case.device.startswith("cuda")
    memory = int(SHARE * psutil.virtual_memory().available) if on_cpu else None
    worker = Worker(variant, limit=LONGEST, memory=memory)
    try:
        before = worker.held()
        started = time.monotonic()
        prepared = worker.prepare(case, 1)
        timing = worker.turn()
        return {
            "cpu": timing.cpu,
            "wall": timing.wall,
            "prepared": prepared,
            "elapsed": time.monotonic() - started,
            "peak": timing.peak - before,
            "edges": worker.edges(),
        }
    except (Failed, Unavailable) as reason:
        return {"reason": str(reason)}
    finally:
        worker.close()


def _line(row: dict[str, Any]) -> str:
    where = f"{row['series']}: {row['model']} {row['variant']}, {row['atoms']} atoms"
    if "reason" in row:
        return f"{where}: {row['reason']}"
    return (
        f"{where}, {row['edges']} edges: {1000 * row['cpu']:.0f} ms CPU, "
        f"{row['peak'] / 2**20:.0f} MiB"
    )
