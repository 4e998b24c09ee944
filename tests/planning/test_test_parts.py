"""Seeds that test on the same trajectories are told, by hand-made examples."""

from __future__ import annotations

from collections.abc import Callable

from study.datasets.split_config import Split
from study.datasets.splits import held_out_units
from study.planning.test_parts import shared_tests
from study.space.trial import Trial


def lines(build: Callable[..., Trial], seeds: range, split: Split, **changes: object) -> list[str]:
    trials = [build(seed=seed, split=split.model_dump(), **changes) for seed in seeds]
    return shared_tests(trials, lambda dataset: dataset.sizes)


def test_seeds_of_one_fold_are_told_and_those_of_different_folds_are_not(
    tiny: Callable[..., Trial],
) -> None:
    folds = Split(folds=4)
    assert lines(tiny, range(4), folds) == []
    (line,) = lines(tiny, range(6), folds)
    assert "seeds 0 and 4; 1 and 5 test on the same trajectories" in line
    assert "6 seeds have 4 different test parts" in line


def test_drawn_parts_that_coincide_are_told(tiny: Callable[..., Trial]) -> None:
    split = Split()  # One of four trajectories tests.
    tested = [held_out_units(4, split, seed) for seed in range(8)]
    (line,) = lines(tiny, range(8), split)
    assert f"8 seeds have {len(set(tested))} different test parts" in line
    same = [str(seed) for seed in range(8) if tested[seed] == tested[0]]
    assert f"seeds {', '.join(same[:-1])} and {same[-1]}" in line


def test_parts_that_share_half_of_their_trajectories_are_told(tiny: Callable[..., Trial]) -> None:
    split = Split(test=2)
    tested = [held_out_units(4, split, seed) for seed in range(4)]
    pairs = [(a, b) for i, a in enumerate(set(tested)) for b in list(set(tested))[i + 1 :]]
    half = sum(len(a & b) >= 1 for a, b in pairs)
    (line,) = lines(tiny, range(4), split)
    assert f"{half} of {len(pairs)} pairs of test parts share half" in line


def test_data_of_their_own_are_not_shared(tiny: Callable[..., Trial]) -> None:
    assert lines(tiny, range(8), Split(), dataset__seed="trial") == []


def test_single_frames_and_published_parts_are_left_out(tiny: Callable[..., Trial]) -> None:
    assert lines(tiny, range(8), Split(by="frame")) == []
