"""Make or look at a data set: `python -m study.data tip3p`, `python -m study.data inspect`.

Nothing heavy is imported before it is needed, so that help appears at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from study.frames import Frames

ELEMENTS = {1: ("H", 1.008), 6: ("C", 12.011), 7: ("N", 14.007), 8: ("O", 15.999)}
"""Atomic number → symbol, mass in u."""
GRAMS_PER_CM3 = 1.66053906660
"""g/cm³ in one u/Å³ (CODATA 2018)."""
FRAMES_FOR_DISTANCES = 20
"""Frames, evenly spread, in which `inspect` measures all distances."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.command(chosen)
    except UserError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run again to go on from the finished pieces\n")
        return 130
    return 0


@contextmanager
def progress_display(label: str) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, all) that shows a bar in a terminal, else a line every ten seconds."""
    if not sys.stdout.isatty():
        yield _plain_lines(label)
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task(label)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_lines(label: str) -> Callable[[int, int], None]:
    started, shown = time.monotonic(), float("-inf")

    def show(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= 10:
            shown = now
            sys.stdout.write(f"{label}: {done}/{total} pieces, {now - started:.0f} s\n")
            sys.stdout.flush()

    return show


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m study.data", description=__doc__)
    commands = parser.add_subparsers(required=True)
    tip3p = commands.add_parser(
        "tip3p",
        help="simulate rigid TIP3P water with OpenMM",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    tip3p.set_defaults(command=_tip3p)
    tip3p.add_argument("--molecules", type=int, default=258, help="at the paper's density")
    tip3p.add_argument("--trajectories", type=int, default=10, help="independent simulations")
    tip3p.add_argument("--frames", type=int, default=1000, help="of each, 0.1 ps apart")
    tip3p.add_argument("--temperature", type=float, default=300.0, help="K")
    tip3p.add_argument("--out", type=Path, default=Path("runs"), help="made in OUT/data")
    tip3p.add_argument("--workers", type=int, default=_cores(), help="cores to use")
    inspect = commands.add_parser("inspect", help="what a data set holds")
    inspect.set_defaults(command=_inspect)
    inspect.add_argument("folder", type=Path)
    return parser


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tip3p(chosen: argparse.Namespace) -> None:
    from pydantic import ValidationError

    from study.datasets.tip3p import make
    from study.frames import read_header
    from study.trial import TIP3PWater

    fields = ("molecules", "trajectories", "frames", "temperature")
    try:
        recipe = TIP3PWater(name="tip3p_water", **{name: getattr(chosen, name) for name in fields})
    except ValidationError as error:
        raise UserError(
            *(f"--{e['loc'][0]}: {e['msg']}, but got {e['input']}" for e in error.errors())
        ) from None
    if chosen.workers < 1:
        raise UserError(f"--workers: must be at least 1, but got {chosen.workers}")
    started = time.monotonic()
    with progress_display("simulating TIP3P water") as progress:
        folder = make(recipe, chosen.out / "data", chosen.workers, progress)
    header, seconds = read_header(folder), time.monotonic() - started
    sys.stdout.write(
        f"folder        {folder}\ncontent hash  {header['content_hash']}\n"
        f"frames        {header['frames']}\ntime          {seconds:.1f} s\n"
    )


def _inspect(chosen: argparse.Namespace) -> None:
    from study.frames import Frames

    rows = summary(Frames.load(chosen.folder))
    width = max(len(name) for name in rows)
    sys.stdout.write("".join(f"{name:<{width}}  {value}\n" for name, value in rows.items()))


def summary(frames: Frames) -> dict[str, str]:
    """What a data set holds, in words: property → value with unit."""
    import numpy as np

    per_atom = frames.energies / frames.sizes
    norms, edges = np.linalg.norm(frames.forces, axis=1), np.linalg.norm(frames.cells, axis=2)
    density = _densities(frames)
    shown = np.unique(np.linspace(0, len(frames) - 1, FRAMES_FOR_DISTANCES).round().astype(int))
    distances = [_distances(frames, int(index)) for index in shown]
    bonds, contacts = np.concatenate([d[0] for d in distances]), [d[1] for d in distances]
    return {
        "frames": f"{len(frames)} in {len(np.unique(frames.groups))} groups",
        "atoms per frame": _span(frames.sizes, "d"),
        "atoms in all": _composition(frames),
        "box edges": f"{_span(edges, '.4f')} Å",
        "density": f"{density.mean():.4f} g/cm³, deviation {density.std():.4f}",
        "energy": f"{per_atom.mean():.5f} eV/atom, deviation {per_atom.std():.5f}",
        "force component": f"{np.sqrt(np.mean(frames.forces**2)):.4f} eV/Å root mean square",
        "largest force": f"{norms.max():.3f} eV/Å",
        "O-H distance": f"{_span(bonds, '.4f')} Å in {len(shown)} frames",
        "shortest contact between molecules": f"{min(contacts):.3f} Å in {len(shown)} frames",
    }


def _span(values: NDArray[Any], form: str) -> str:
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"


def _composition(frames: Frames) -> str:
    import numpy as np

    kinds, counts = np.unique(frames.numbers, return_counts=True)
    names = [ELEMENTS.get(int(kind), (f"Z{kind}", 0.0))[0] for kind in kinds]
    return ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))


def _densities(frames: Frames) -> NDArray[np.float64]:
    """(frames,) g/cm³; not a number where an element's mass is not listed here."""
    import numpy as np

    masses = np.full(256, np.nan)
    for number, (_, mass) in ELEMENTS.items():
        masses[number] = mass
    volumes = np.abs(np.linalg.det(frames.cells))
    per_frame = np.add.reduceat(masses[frames.numbers], frames.offsets[:-1])
    return np.asarray(per_frame / volumes * GRAMS_PER_CM3)


def _distances(frames: Frames, index: int) -> tuple[NDArray[np.float64], float]:
    """Each hydrogen to its oxygen, and the shortest distance between two molecules, Å.

    A hydrogen belongs to the oxygen nearest to it; any other atom is a molecule of its own.
    """
    import numpy as np

    atoms = slice(*frames.offsets[index : index + 2])
    numbers, cell = frames.numbers[atoms], frames.cells[index]
    fractional = frames.positions[atoms] @ np.linalg.inv(cell)
    apart = fractional[:, None] - fractional
    # Rounding finds the nearest image up to half the box's smallest height: enough for contacts.
    lengths = np.linalg.norm((apart - apart.round()) @ cell, axis=-1)
    oxygens, hydrogens = np.flatnonzero(numbers == 8), np.flatnonzero(numbers == 1)
    molecule = np.arange(len(numbers))
    if not len(oxygens):
        return np.array([np.nan]), float(lengths[lengths > 0].min())
    bonds = lengths[np.ix_(hydrogens, oxygens)]
    molecule[hydrogens] = oxygens[bonds.argmin(axis=1)]
    return bonds.min(axis=1), float(lengths[molecule[:, None] != molecule].min())


if __name__ == "__main__":
    sys.exit(main())
