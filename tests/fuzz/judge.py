"""Whether frames that were read are those that a file held before it was damaged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from study.datasets.frames import Frames

CLOSE = 1e-6


def misread(found: Frames, whole: Frames, *, cut_at_a_frame: bool) -> str:
    """What is wrong with frames of a damaged file, of which no value was changed.

    Args:
        found: in the damaged file.
        whole: those of the undamaged one.
        cut_at_a_frame: whether what is missing is whole frames at the end, which nothing tells.
    """
    known = list(_frames(whole))
    for number, frame in enumerate(_frames(found)):
        if not any(_same(frame, other) for other in known):
            return f"frame {number} is none of the file's"
    if len(found) < len(whole) and not cut_at_a_frame:
        return f"{len(found)} of {len(whole)} frames"
    return ""


def _frames(frames: Frames) -> Iterator[tuple[np.ndarray, ...]]:
    for index in range(len(frames)):
        atoms = slice(*frames.offsets[index : index + 2])
        yield (
            frames.numbers[atoms].astype(float),
            frames.positions[atoms],
            frames.forces[atoms],
            frames.energies[index : index + 1],
            frames.lattices[index],
            frames.pbc[index].astype(float),
            *(values[index : index + 1] for values in frames.properties.values()),
        )


def _same(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=CLOSE, atol=CLOSE, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )
