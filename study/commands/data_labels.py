"""How `python -m study.data` lets an ASE calculator label structures."""

from __future__ import annotations

import sys

import numpy as np

from study.commands.data_options import LabelOptions, SampleOptions
from study.console.progress_bar import progress_display
from study.core.errors import UserError
from study.core.quantities.elements import ATOMIC_NUMBERS
from study.datasets.frames import Frames
from study.datasets.readers.detect import read_set
from study.datasets.sources.labeling import Sampling, label_frames


def label(options: LabelOptions) -> None:
    """Label structures, or frames sampled from them.

    Raises:
        UserError: for options that admit none, or if the calculator fails.
    """
    if options.out.exists():
        raise UserError(f"{options.out}: must not exist yet; remove it, or name another file")
    if options.workers < 1:
        raise UserError(f"--workers: must be at least 1, but got {options.workers}")
    sampling = _sampling(options) if isinstance(options, SampleOptions) else None
    frames = _chosen_structures(options)
    what = (options.calculator, options.out, sampling, options.workers)
    with progress_display(f"{options.calculator} labels {len(frames)} structures") as progress:
        labelled = label_frames(frames, *what, progress)
    sys.stdout.write(f"{options.out}  {len(labelled)} frames\n")


def _sampling(options: SampleOptions) -> Sampling:
    for name in ("frames", "temperature", "spacing"):
        if getattr(options, name) <= 0:
            raise UserError(f"--{name}: must be above 0, but got {getattr(options, name)}")
    return Sampling(options.frames, options.temperature, spacing=options.spacing, seed=options.seed)


def _chosen_structures(options: LabelOptions) -> Frames:
    """Select the structures of the size and elements that are asked for."""
    frames = read_set(options.set)
    low, _, high = options.atoms.partition("-")
    try:
        fits = (frames.sizes >= int(low)) & (frames.sizes <= int(high or low))
    except ValueError:
        raise UserError(f"--atoms: must be as 4 or 4-9, but got {options.atoms!r}") from None
    if options.elements:
        symbols = options.elements.split(",")
        if unknown := [symbol for symbol in symbols if symbol not in ATOMIC_NUMBERS]:
            raise UserError(f"--elements: must be as H,C,O, but got {', '.join(unknown)}")
        wanted = np.isin(frames.numbers, [ATOMIC_NUMBERS[symbol] for symbol in symbols])
        fits &= np.logical_and.reduceat(wanted, frames.offsets[:-1])
    if not fits.any():
        raise UserError(f"{options.set}: no structure of this size and of these elements")
    return frames.select(np.flatnonzero(fits))
