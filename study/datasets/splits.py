"""Which frames train, validate and test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from study.core.atomic_io import write_bytes
from study.core.errors import MALFORMED, UserError
from study.core.hashing import digest
from study.core.seeding import seed_of, seeded
from study.datasets.frames import Frames
from study.datasets.parsing.array_files import arrays_once
from study.datasets.readers.conformers import extents
from study.datasets.sizes import Histogram, Sizes

if TYPE_CHECKING:
    from study.datasets.split_config import Split


PARTS = (0, 1, 2)
"""Values of the property `part`: trains, validates, tests."""
LISTED_GROUPS = 20
"""Groups of test frames that the records list; of more they give the number."""
MANY = 50_000
"""Frames from which a split takes so long that its end is kept for all trials."""
FACTS = "facts"
"""File of what the records say of a split, beside those of its parts."""
FEW_FORMULAS = 10**7
"""Numbers of sum formulas up to which a table of all is quicker than sorting them."""
LOOKED_AT = 100
"""Frames of a part that are asked first whether they have a label."""


@dataclass(frozen=True)
class Splits:
    """Frame numbers of the three disjoint parts, each in a random but fixed order."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse parts that share a frame, and empty parts."""
        parts = (self.train, self.validation, self.test)
        together = np.concatenate(parts)
        if len(together) and np.bincount(together).max() > 1:
            raise UserError("split: the parts must not share frames")
        if any(len(part) == 0 for part in parts):
            raise UserError(
                f"split: every part needs a frame, but train, validation, test have "
                f"{[len(part) for part in parts]}; take more frames or trajectories"
            )

    def content_hash(self) -> str:
        """SHA-256 over the three lists."""
        return digest([part.tolist() for part in (self.train, self.validation, self.test)])

    def save(self, folder: Path) -> None:
        """Write the frame numbers of each part to a file named by their hash, if it is new."""
        name = self.content_hash()
        if self.load(folder, name) is None:
            parts = {name: part.tolist() for name, part in vars(self).items()}
            write_bytes(folder / f"{name}.json", json.dumps(parts).encode())

    @classmethod
    def load(cls, folder: Path, content_hash: str) -> Splits | None:
        """Read what `save` wrote; None if it is not there, or damaged."""
        try:
            parts = json.loads((folder / f"{content_hash}.json").read_bytes())
            names = ("train", "validation", "test")
            found = cls(*(np.array(parts[name], dtype=np.int64) for name in names))
        except (*MALFORMED, UserError, FileNotFoundError):
            return None
        return found if found.content_hash() == content_hash else None


def split(frames: Frames, settings: Split, seed: int) -> Splits:
    """Hold out a test part of all units, then a validation part of the rest.

    The units are whole groups of correlated frames, single frames, or all frames of a sum formula;
    equal frames are never torn apart. A part gets at least one unit. With folds the test part is
    the fold of the seed. A published split is taken as it is.
    """
    if settings.by == "published":
        parts = frames.properties.get("part", np.full(len(frames), np.nan))
        order = _permutation(len(frames), seed, "frames")
        return Splits(*(order[parts[order] == number] for number in PARTS))
    units, owner = _numbered(units_of(frames, settings.by))
    shuffled = _permutation(len(units), seed, "units")
    _, n_validation, n_test = settings.counts(len(units))
    fold = settings.fold_of(len(units), seed)
    if fold is not None:
        shuffled = np.concatenate([fold, shuffled[~np.isin(shuffled, fold)]])
        n_test = len(fold)
    parts = np.empty(len(units), np.int8)
    dealt = np.split(shuffled, [n_test, n_test + n_validation])
    for part, some in zip((2, 1, 0), dealt, strict=True):
        parts[some] = part
    order = _permutation(len(frames), seed, "frames")
    return Splits(*(order[parts[owner[order]] == part] for part in PARTS))


def _numbered(owner: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different units in order, and (frames,) the place of each one's unit among them."""
    if np.all(owner[1:] > owner[:-1]):
        return owner, np.arange(len(owner))
    units, places = np.unique(owner, return_inverse=True)
    return units, places


def split_once(
    frames: Frames, settings: Split, seed: int, folder: Path, origin: list[str]
) -> tuple[Splits, dict[str, str | int]]:
    """Split frames, or find how they were split before, and what the records say of it.

    Args:
        frames: all of a set.
        settings: of the split.
        seed: of the trial.
        folder: of all splits.
        origin: hashes of all else that decides it, the frames and the code.
    """
    if len(frames) < MANY:
        return _saved(split(frames, settings, seed), frames, folder)

    def make(place: Path) -> None:
        splits, facts = _saved(split(frames, settings, seed), frames, folder)
        for name, part in vars(splits).items():
            np.save(place / f"{name}.npy", part)
        np.save(place / f"{FACTS}.npy", np.frombuffer(json.dumps(facts).encode(), np.uint8))

    key = digest([*origin, settings.model_dump(mode="json"), seed])
    arrays = arrays_once(folder / f"of-{key[:20]}", make)
    facts = json.loads(arrays.pop(FACTS).tobytes())
    return Splits(**arrays), facts


def _saved(splits: Splits, frames: Frames, folder: Path) -> tuple[Splits, dict[str, str | int]]:
    """A split that is kept by its hash, and its facts."""
    splits.save(folder)
    return splits, _facts(frames, splits)


def _facts(frames: Frames, splits: Splits) -> dict[str, str | int]:
    """What the records say of a split: which part tests, and of which trajectories it is."""
    groups = np.unique(frames.groups[splits.test]).tolist()
    return {
        "split_hash": splits.content_hash(),
        "test_hash": digest(sorted(splits.test.tolist())),
        "test_groups": len(groups),
        "all_groups": len(np.unique(frames.groups)),
        "tested": ", ".join(map(str, groups)) if len(groups) <= LISTED_GROUPS else "",
    }


def held_out_units(units: int, settings: Split, seed: int) -> frozenset[int]:
    """The numbers of the units that a split tests on, without torch; see `split`.

    Args:
        units: how many there are.
        settings: of the split; not a published one.
        seed: of the trial.
    """
    fold = settings.fold_of(units, seed)
    if fold is not None:
        return frozenset(fold)
    # What torch.randperm does with the Mersenne Twister of its generator.
    twister = np.random.RandomState(seed_of("split", "units", seed) & 0xFFFFFFFF)
    drawn = twister.randint(0, 2**32, size=units, dtype=np.uint32)
    order, test = list(range(units)), settings.counts(units)[2]
    for place in range(test):
        other = place + int(drawn[place]) % (units - place)
        order[place], order[other] = order[other], order[place]
    return frozenset(order[:test])


def require_labels(
    frames: Frames, parts: Sequence[NDArray[np.int64]], names: Iterable[str]
) -> None:
    """Refuse parts of which one has no frame with a label that is to be learned.

    Args:
        frames: all of the set.
        parts: frame numbers that train, validate and test.
        names: of labels.

    Raises:
        UserError: naming the label, and how often it is in each part.
    """
    firsts = [frames.select(part[:LOOKED_AT]) for part in parts]
    for name in names:
        if all(first.labelled(name).any() for first in firsts):
            continue
        known = frames.labelled(name)
        counts = [int(known[part].sum()) for part in parts]
        if not all(counts):
            raise UserError(
                f"split: every part needs a frame labelled with {name}, but train, validation, "
                f"test have {counts}; split by something else, by larger parts, or by another seed"
            )


def units_of(
    frames: Frames, by: Literal["trajectory", "frame", "composition"]
) -> NDArray[np.int64]:
    """(frames,) number of the unit that each belongs to.

    Frames with the same atoms, positions and lattice are one unit; by trajectory they join their
    groups. So no part holds a frame that another part knows.
    """
    if by == "composition":
        return _compositions(frames)
    copies = frames.first_copies
    if by == "frame":
        return copies
    if np.array_equal(copies, np.arange(len(frames))):
        return frames.groups
    # Needed only for duplicates, and slow to import.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, groups = np.unique(frames.groups, return_inverse=True)
    size, ones = len(frames) + len(groups), np.ones(len(frames))
    links = coo_array((ones, (copies, len(frames) + groups)), shape=(size, size))
    _, joined = connected_components(links, directed=False)
    return np.asarray(joined[len(frames) + groups], dtype=np.int64)


def sizes_of(frames: Frames) -> Sizes:
    """How much the frames hold."""
    elements, counts = element_counts(frames)
    oxygens, hydrogens = (counts[:, elements == z].sum(axis=1) for z in (8, 1))
    water = (hydrogens == 2 * oxygens) & (hydrogens + oxygens == frames.sizes)
    groups, copies, compositions = (
        _histogram(units_of(frames, by)) for by in ("trajectory", "frame", "composition")
    )
    parts = frames.properties.get("part", np.empty(0))
    # A molecule fills its cell up to three Å around it; the vacuum beyond has no neighbours.
    filled = np.prod(extents(frames) + 3, axis=1)
    whole = np.where(frames.pbc.all(axis=1), np.abs(np.linalg.det(frames.cells)), np.inf)
    volume = np.minimum(whole, filled).sum()
    return Sizes(
        groups=groups,
        copies=copies,
        compositions=compositions,
        atoms=float(frames.sizes.mean()),
        waters=int(oxygens.min()) if water.all() else 0,
        density=float(len(frames.numbers) / volume),
        labels=frames.labels,
        labelled=tuple(int(frames.labelled(name).sum()) for name in frames.labels),
        isolated=int(frames.isolated.sum()),
        elements=tuple(elements.tolist()),
        published=tuple(int((parts == number).sum()) for number in PARTS),
        others=float(frames.sizes @ (frames.sizes - 1) / len(frames.numbers))
        if frames.isolated.all()
        else None,
    )


def _compositions(frames: Frames) -> NDArray[np.int64]:
    """(frames,) number of the sum formula of each."""
    formula = np.zeros(len(frames), np.int64)
    for counts in element_counts(frames)[1].T:
        formula = formula * (counts.max(initial=0) + 1) + counts
        if formula.max(initial=0) > FEW_FORMULAS:
            formula = np.unique(formula, return_inverse=True)[1]
        else:
            formula = (np.cumsum(np.bincount(formula) > 0) - 1)[formula]
    return formula


def element_counts(frames: Frames) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(elements,) atomic numbers that occur, and (frames, elements) how often in each frame."""
    elements = np.flatnonzero(np.bincount(frames.numbers))
    counts = np.empty((len(elements), len(frames)), np.int64)
    for row, number in zip(counts, elements, strict=True):
        np.add.reduceat(frames.numbers == number, frames.offsets[:-1], dtype=np.int64, out=row)
    return elements, counts.T


def _histogram(owner: NDArray[np.int64]) -> Histogram:
    """How many units have each number of frames."""
    _, frames = np.unique(owner, return_counts=True)
    sizes, counts = np.unique(frames, return_counts=True)
    return tuple(zip(sizes.tolist(), counts.tolist(), strict=True))


def _permutation(size: int, seed: int, purpose: str) -> NDArray[np.int64]:
    # Importing torch takes longer than reading most data sets.
    import torch

    order = torch.randperm(size, generator=seeded("split", purpose, seed))
    return np.asarray(order.numpy(), dtype=np.int64)
