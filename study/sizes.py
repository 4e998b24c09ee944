"""How much a data set holds, in a few numbers that need no array."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

Histogram = tuple[tuple[int, int], ...]
"""(frames of a unit, number of such units), smallest units first."""


@dataclass(frozen=True)
class Sizes:
    """What splits, tasks and estimates ask of a data set.

    Args:
        groups: groups of correlated frames.
        copies: frames that are equal, which a split always keeps together.
        atoms: mean per frame.
        waters: water molecules in the smallest frame; 0 if some frame holds anything else.
        density: atoms per Å³.
        labels: what the frames are labelled with, such as energy and forces.
    """

    groups: Histogram
    copies: Histogram
    atoms: float
    waters: int
    density: float
    labels: tuple[str, ...] = ("energy", "forces")

    @property
    def frames(self) -> int:
        """All frames."""
        return sum(size * count for size, count in self.groups)

    def units(self, by: Literal["trajectory", "frame"]) -> int:
        """What a split deals out: groups, or different frames."""
        return sum(count for _, count in self._histogram(by))

    def fewest_frames(self, by: Literal["trajectory", "frame"], units: int) -> int:
        """Frames in the smallest `units` units: no split with so many has fewer."""
        frames = 0
        for size, count in self._histogram(by):
            taken = min(count, max(units, 0))
            frames, units = frames + taken * size, units - taken
        return frames

    def _histogram(self, by: Literal["trajectory", "frame"]) -> Histogram:
        return self.groups if by == "trajectory" else self.copies

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, by way of JSON."""
        pairs = {name: tuple(map(tuple, value[name])) for name in ("groups", "copies")}
        return cls(**(value | pairs | {"labels": tuple(value["labels"])}))


def histogram(sizes: Iterable[int]) -> Histogram:
    """How often each size occurs."""
    counts: dict[int, int] = {}
    for size in sizes:
        counts[size] = counts.get(size, 0) + 1
    return tuple(sorted(counts.items()))
