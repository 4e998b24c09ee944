"""Which seeds of a study test on the same trajectories, so that they are not independent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations

from study.datasets.config import DatasetConfig
from study.datasets.sizes import Sizes
from study.datasets.split_config import Split
from study.datasets.splits import held_out_units
from study.space.trial import Trial
from study.space.trial_checks import PLURALS

MUCH = 0.5
"""Share of a smaller test part in a larger one from which on the two count as the same data."""

MOST_UNITS = 1_000_000
"""Units of all seeds together that are looked at; nobody waits for more."""


def shared_tests(
    trials: Iterable[Trial], sizes_of: Callable[[DatasetConfig], Sizes | None]
) -> list[str]:
    """Describe the data sets of which several seeds test on the same part, a line for each.

    Single frames and published parts are left out: drawn frames always coincide to some extent,
    and a published part is the same for every seed by its nature.

    Args:
        trials: of the study.
        sizes_of: how much a data set holds; None if that is not known yet.
    """
    seeds: dict[tuple[DatasetConfig, Split], set[int]] = {}
    for trial in trials:
        seeds.setdefault((trial.datasets[0], trial.split), set()).add(trial.seed)
    lines = []
    for (dataset, split), tested in seeds.items():
        sizes = sizes_of(dataset)
        if sizes is None or split.by == "published" or (split.by == "frame" and not split.folds):
            continue
        units = sizes.units(split.by)
        if units * len(tested) > MOST_UNITS or (split.folds or 0) > units:
            continue
        parts = {seed: held_out_units(units, split, seed) for seed in sorted(tested)}
        if said := "; ".join(_overlaps(parts, PLURALS[split.by])):
            way_out = _way_out(split, units, len(tested))
            lines.append(
                f"{dataset.label}: {said}; intervals over seeds take them as independent{way_out}"
            )
    return lines


def _overlaps(parts: Mapping[int, frozenset[int]], units: str) -> Iterator[str]:
    """Which seeds have the same test part, and how many pairs have much of it in common."""
    same: dict[frozenset[int], list[int]] = {}
    for seed, part in parts.items():
        same.setdefault(part, []).append(seed)
    repeated = [seeds for seeds in same.values() if len(seeds) > 1]
    if repeated:
        groups = "; ".join(_listed(seeds) for seeds in repeated)
        yield (
            f"seeds {groups} test on the same {units}, so that {len(parts)} seeds have "
            f"{len(same)} different test parts"
        )
    pairs = list(combinations(same, 2))
    much = sum(len(a & b) >= MUCH * min(len(a), len(b)) for a, b in pairs)
    if much:
        yield f"{much} of {len(pairs)} pairs of test parts share half of their {units} or more"


def _way_out(split: Split, units: int, seeds: int) -> str:
    if split.folds:
        return f"; take seeds 0 to {split.folds - 1}, or more folds"
    if units < max(3, seeds):
        return f"; take more {PLURALS[split.by]}"
    return f"; `split.folds: {units}` gives seeds 0 to {units - 1} parts of their own"


def _listed(seeds: list[int]) -> str:
    *others, last = map(str, seeds)
    return f"{', '.join(others)} and {last}"
