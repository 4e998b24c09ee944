"""How `python -m study.data` describes, checks, divides and writes sets."""

from __future__ import annotations

import sys

import numpy as np
from pydantic import ValidationError

from study.commands.data_options import (
    ExportOptions,
    InspectOptions,
    SplitOptions,
    VerifyOptions,
)
from study.console.formatting import write_lines
from study.core.errors import UserError
from study.datasets.diagnostics import split_warnings, warnings
from study.datasets.frames import Frames
from study.datasets.inspection import summary
from study.datasets.parsing.header import HEADER
from study.datasets.readers.ase_file import write
from study.datasets.readers.detect import read_set
from study.datasets.sizes import SplitBy
from study.datasets.split_config import Split
from study.datasets.splits import split
from study.datasets.validation import check


def inspect(options: InspectOptions) -> None:
    """Show what a set holds, and what looks wrong."""
    frames = _read(options)
    rows = summary(frames)
    width = max(len(name) for name in rows)
    write_lines("".join(f"{name:<{width}}  {value}\n" for name, value in rows.items()))
    lines = [*warnings(frames), *_odd_parts(frames)]
    write_lines("".join(f"warning: {line}\n" for line in lines))


def _odd_parts(frames: Frames) -> list[str]:
    """What is odd about the parts of the usual split, or of one by frame without groups."""
    kinds: tuple[SplitBy, ...] = ("trajectory", "frame")
    for by in kinds:
        try:
            parts = vars(split(frames, Split(by=by), seed=0))
        except UserError:
            continue
        return [f"{line} (split by {by}, seed 0)" for line in split_warnings(frames, parts)]
    return []


def verify(options: VerifyOptions) -> None:
    """Check every file against its hash, and every frame against what no set may contain.

    Raises:
        UserError: for all that is wrong.
    """
    sets = options.set or sorted(path.parent for path in options.out.glob(f"data/*/{HEADER}"))
    if not sets:
        raise UserError(f"{options.out / 'data'}: no data set here; name one, or another --out")
    problems: list[str] = []
    for place in sets:
        try:
            frames = read_set(place)
            check(frames, place)
        except UserError as error:
            problems += error.problems
        else:
            sys.stdout.write(f"ok  {place}  {len(frames)} frames  {frames.content_hash()[:12]}\n")
    if problems:
        raise UserError(*problems)


def split_set(options: SplitOptions) -> None:
    """Write the three parts of a set.

    Raises:
        UserError: if the set cannot be divided so, or the folder exists.
    """
    if options.folder.exists():
        raise UserError(f"{options.folder}: must not exist yet; remove it, or name another folder")
    try:
        settings = Split(by=options.by, test=options.test, validation=options.validation)
    except ValidationError as error:
        raise UserError(
            *(f"--{e['loc'][0]}: {e['msg']}, but got {e['input']}" for e in error.errors())
        ) from None
    frames = _read(options)
    parts = split(frames, settings, options.seed)
    for name, indices in vars(parts).items():
        write(frames.select(indices), options.folder / f"{name}.extxyz")
        sys.stdout.write(f"{options.folder / name}.extxyz  {len(indices)} frames\n")
    for line in split_warnings(frames, vars(parts)):
        write_lines(f"warning: {line}\n")


def export_set(options: ExportOptions) -> None:
    """Write the frames of a set.

    Raises:
        UserError: if the set cannot be read, or the file exists.
    """
    if options.file.exists():
        raise UserError(f"{options.file}: must not exist yet; remove it, or name another file")
    if options.every < 1:
        raise UserError(f"--every: must be at least 1, but got {options.every}")
    frames = _read(options)
    chosen_frames = frames.select(np.arange(0, len(frames), options.every))
    write(chosen_frames, options.file)
    sys.stdout.write(f"{options.file}  {len(chosen_frames)} frames\n")


def _read(options: InspectOptions | SplitOptions | ExportOptions) -> Frames:
    """The frames of a set, as the options say; sane ones.

    Raises:
        UserError: if they cannot be read, or no model can learn from them.
    """
    frames = read_set(options.set, **options.keys())
    check(frames, options.set)
    return frames
