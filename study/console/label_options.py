"""The commands of `study.data` that let an ASE calculator label structures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.console.progress_bar import progress_display
from study.core.elements import ATOMIC_NUMBERS
from study.core.errors import UserError
from study.core.provenance import cores

if TYPE_CHECKING:
    from study.datasets.frames import Frames

# Nothing heavy is imported before it is needed, so that help appears at once.


def add_commands(commands: Any) -> None:
    """Add `label` and `sample` to the commands of a parser."""
    label = commands.add_parser("label", help="label a set with an ASE calculator")
    sample = commands.add_parser("sample", help="make frames by dynamics with an ASE calculator")
    for command in (label, sample):
        command.formatter_class = argparse.ArgumentDefaultsHelpFormatter
        command.set_defaults(command=_teach)
        command.add_argument("set", type=Path, metavar="SET", help="or g2, ASE's molecules")
        command.add_argument(
            "--calculator",
            required=True,
            help="GFN2-xTB, GFN1-xTB, or MODULE:FACTORY or FILE.py:FACTORY of an ASE calculator",
        )
        command.add_argument("--out", type=Path, required=True, help="*.extxyz; must not exist yet")
        command.add_argument("--atoms", default="1-1000000", help="only structures of this size")
        command.add_argument("--elements", help="only of these elements, such as H,C,N,O")
        command.add_argument("--workers", type=int, default=cores(), help="cores to use")
    sample.add_argument("--frames", type=int, default=20, help="of each structure; 1 relaxes it")
    sample.add_argument("--temperature", type=float, default=300.0, help="K")
    sample.add_argument("--spacing", type=float, default=25.0, help="fs between frames")
    sample.add_argument("--seed", type=int, default=0, help="of velocities and heat bath")


def _teach(chosen: argparse.Namespace) -> None:
    from study.datasets.sources.labeling import Sampling, teach

    if chosen.out.exists():
        raise UserError(f"{chosen.out}: must not exist yet; remove it, or name another file")
    if chosen.workers < 1:
        raise UserError(f"--workers: must be at least 1, but got {chosen.workers}")
    sampling = None
    if "frames" in chosen:
        for name in ("frames", "temperature", "spacing"):
            if getattr(chosen, name) <= 0:
                raise UserError(f"--{name}: must be above 0, but got {getattr(chosen, name)}")
        fields = ("frames", "temperature", "spacing", "seed")
        sampling = Sampling(**{name: getattr(chosen, name) for name in fields})
    frames = _chosen_structures(chosen)
    what = (chosen.calculator, chosen.out, sampling, chosen.workers)
    with progress_display(f"{chosen.calculator} labels {len(frames)} structures") as progress:
        taught = teach(frames, *what, progress)
    sys.stdout.write(f"{chosen.out}  {len(taught)} frames\n")


def _chosen_structures(chosen: argparse.Namespace) -> Frames:
    """Select the structures of the size and elements that are asked for."""
    import numpy as np

    from study.datasets.readers.detect import read_set

    frames = read_set(chosen.set)
    low, _, high = chosen.atoms.partition("-")
    try:
        fits = (frames.sizes >= int(low)) & (frames.sizes <= int(high or low))
    except ValueError:
        raise UserError(f"--atoms: must be as 4 or 4-9, but got {chosen.atoms!r}") from None
    if chosen.elements:
        symbols = chosen.elements.split(",")
        if unknown := [symbol for symbol in symbols if symbol not in ATOMIC_NUMBERS]:
            raise UserError(f"--elements: must be as H,C,O, but got {', '.join(unknown)}")
        wanted = np.isin(frames.numbers, [ATOMIC_NUMBERS[symbol] for symbol in symbols])
        fits &= np.logical_and.reduceat(wanted, frames.offsets[:-1])
    if not fits.any():
        raise UserError(f"{chosen.set}: no structure of this size and of these elements")
    return frames.select(np.flatnonzero(fits))
