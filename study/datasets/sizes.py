"""How much a data set holds, in a few numbers that need no array."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from study.datasets.split_config import Split

SplitBy = Literal["trajectory", "frame", "composition", "published"]
"""What a split deals out whole."""

EDGE_BYTES = 14
"""Of an edge held in memory: two atoms in 32 bits, three translations in 16."""
MOST_EDGE_BYTES = 4_000_000_000
"""That a process holds of a data set; if there are more, each batch finds its own."""
STORED_EDGE_BYTES, STORED_ATOMS = 100_000_000, 2_000_000
"""Bytes of edges, and atoms of a set, from which what takes long to find is kept beside the frames
in files that all processes of a machine map, and that take no memory of their own."""

Histogram = tuple[tuple[int, int], ...]
"""(frames of a unit, number of such units), smallest units first."""


@dataclass(frozen=True)
class Sizes:
    """What splits, tasks and estimates ask of a data set.

    Args:
        groups: groups of correlated frames.
        copies: frames that are equal, which a split always keeps together.
        compositions: frames of one sum formula.
        atoms: mean per frame.
        waters: water molecules in the smallest frame; 0 if some frame holds anything else.
        density: atoms per Å³, vacuum left out.
        labels: what frames are labelled with, all or some, such as energy and forces.
        published: frames that train, validate and test in the split it was published with.
        others: other atoms in an atom's frame, mean over atoms, if all frames are molecules in
            vacuum; None if some are periodic.
        labelled: frames that have each of `labels`; all have them when empty.
        isolated: frames that are periodic in no direction.
        elements: atomic numbers; none if they are not known.
    """

    groups: Histogram
    copies: Histogram
    compositions: Histogram
    atoms: float
    waters: int
    density: float
    labels: tuple[str, ...] = ("energy", "forces")
    published: tuple[int, ...] = (0, 0, 0)
    others: float | None = None
    labelled: tuple[int, ...] = ()
    isolated: int = 0
    elements: tuple[int, ...] = ()

    @property
    def frames(self) -> int:
        """All frames."""
        return sum(size * count for size, count in self.groups)

    @property
    def partial_labels(self) -> str:
        """Labels that only some frames have, in words; empty if all frames have all."""
        named = zip(self.labels, self.labelled, strict=bool(self.labelled))
        return ", ".join(
            partly(name, count, self.frames) for name, count in named if count < self.frames
        )

    def units(self, by: SplitBy) -> int:
        """What a split deals out: groups, different frames, or sum formulas."""
        return sum(count for _, count in self._histogram(by))

    def suited(self, by: SplitBy) -> SplitBy:
        """How it is split: by frame where a published split is asked for and there is none."""
        return "frame" if by == "published" and not any(self.published) else by

    def shares(self, split: Split) -> tuple[float, float, float]:
        """Frames that train, validate and test, on average over seeds."""
        by = self.suited(split.by)
        if by == "published":
            counts, frames_each = self.published, 1.0
        else:
            units = self.units(by)
            counts, frames_each = split.counts(units), self.frames / units
        train, validation, test = (count * frames_each for count in counts)
        return train, validation, test

    def neighbours(self, cutoff: float) -> float:
        """About how many atoms are nearer than `cutoff`, Å, to an atom: no more than there are."""
        evenly = self.density * 4 / 3 * math.pi * cutoff**3
        return evenly if self.others is None else min(evenly, self.others)

    def fewest_frames(self, by: SplitBy, units: int) -> int:
        """Frames in the smallest `units` units: no split with so many has fewer."""
        frames = 0
        for size, count in self._histogram(by):
            taken = min(count, max(units, 0))
            frames, units = frames + taken * size, units - taken
        return frames

    def _histogram(self, by: SplitBy) -> Histogram:
        match by:
            case "trajectory":
                return self.groups
            case "composition":
                return self.compositions
            case _:
                return self.copies

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, by way of JSON."""
        names = ("labels", "published", "labelled", "elements")
        lists = {name: tuple(value.get(name, ())) for name in names}
        for name in ("groups", "copies", "compositions"):
            lists[name] = tuple(map(tuple, value[name]))
        return cls(**(value | lists))


def partly(name: str, count: int, frames: int) -> str:
    """A label, and how many frames have it if that is not all."""
    return name if count == frames else f"{name} of {count} of {frames} frames"
