"""Splits: disjoint, complete, of the right size, fixed by their seed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from study.core.errors import UserError
from study.datasets import splits
from study.datasets.frames import Frames
from study.datasets.readers import ase_file
from study.datasets.sizes import Sizes
from study.datasets.split_config import Split
from study.datasets.splits import (
    Splits,
    held_out_units,
    require_labels,
    sizes_of,
    split,
    split_once,
    units_of,
)
from study.graphs.graph_set import GraphSet

BY_FRAME, BY_TRAJECTORY = Split(by="frame"), Split(by="trajectory")


def single_atoms(groups: list[int]) -> Frames:
    """One hydrogen per frame, each in its own place."""
    count = len(groups)
    return Frames(
        numbers=np.ones(count),
        positions=np.arange(3 * count).reshape(-1, 3),
        forces=np.zeros((count, 3)),
        offsets=np.arange(count + 1),
        cells=np.stack([np.eye(3)] * count),
        energies=np.zeros(count),
        groups=np.array(groups),
    )


def parts(splits: Splits) -> list[list[int]]:
    return [part.tolist() for part in (splits.train, splits.validation, splits.test)]


# Three frames of each of ten trajectories with odd names, not in order.
TRAJECTORIES = single_atoms([7 * ((3 * frame) % 10) - 20 for frame in range(30)])
HUNDRED = single_atoms(list(range(100)))


@pytest.mark.parametrize("settings", [BY_FRAME, BY_TRAJECTORY])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_frame_is_in_exactly_one_part(settings: Split, seed: int) -> None:
    together = sum(len(part) for part in parts(split(TRAJECTORIES, settings, seed)))
    assert together == 30
    assert set().union(*parts(split(TRAJECTORIES, settings, seed))) == set(range(30))


def test_a_tenth_is_tested_and_a_tenth_of_the_rest_validates() -> None:
    assert [len(part) for part in parts(split(HUNDRED, BY_FRAME, 0))] == [81, 9, 10]


def test_other_fractions_are_taken_of_all_and_of_the_rest() -> None:
    settings = Split(by="frame", test=0.25, validation=0.4)
    assert [len(part) for part in parts(split(HUNDRED, settings, 0))] == [45, 30, 25]


def test_numbers_are_taken_as_they_are() -> None:
    settings = Split(by="frame", test=7, validation=20)
    assert [len(part) for part in parts(split(HUNDRED, settings, 0))] == [73, 20, 7]
    groups = Split(by="trajectory", test=1, validation=0.5)
    assert [len(part) for part in parts(split(TRAJECTORIES, groups, 0))] == [15, 12, 3]
    # QM9 as usual, without the molecules that failed its check.
    assert Split(by="frame", test=10_831, validation=10_000).counts(130_831)[0] == 110_000


def test_numbers_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(UserError, match="every part needs a frame"):
        split(HUNDRED, Split(by="frame", test=60, validation=40), 0)
    with pytest.raises(UserError, match="every part needs a frame"):
        split(HUNDRED, Split(by="frame", test=600, validation=40), 0)


@pytest.mark.parametrize("settings", [BY_FRAME, BY_TRAJECTORY])
def test_few_units_still_give_every_part_one(settings: Split) -> None:
    assert [len(part) for part in parts(split(single_atoms([0, 1, 2]), settings, 0))] == [1, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_trajectories_stay_whole(seed: int) -> None:
    groups = [
        set(TRAJECTORIES.groups[part]) for part in parts(split(TRAJECTORIES, BY_TRAJECTORY, seed))
    ]
    assert [len(group) for group in groups] == [8, 1, 1]
    assert len(set().union(*groups)) == 10


def test_frames_of_a_trajectory_are_torn_apart_when_drawn_one_by_one() -> None:
    train, _, test = parts(split(TRAJECTORIES, BY_FRAME, 0))
    assert set(TRAJECTORIES.groups[train]) & set(TRAJECTORIES.groups[test])


def test_the_folds_of_the_seeds_are_dealt_by_number_and_hold_everything_once() -> None:
    frames = single_atoms([3, 3, 5, 5, 7, 9, 9])
    settings = Split(folds=3, validation=1)
    found = [sorted(split(frames, settings, seed).test.tolist()) for seed in range(4)]
    # Of trajectories 3, 5, 7, 9 fold 0 has the first and the fourth.
    assert found == [[0, 1, 5, 6], [2, 3], [4], [0, 1, 5, 6]]
    for seed in range(3):
        made = split(frames, settings, seed)
        assert len(np.unique(frames.groups[made.validation])) == 1
        assert sorted(np.concatenate([made.train, made.validation, made.test])) == [*range(7)]


def test_folds_draw_what_validates_by_the_seed_alone() -> None:
    frames = single_atoms([*range(20)])
    drawn = {tuple(sorted(split(frames, Split(folds=2), seed).validation)) for seed in (0, 2, 4)}
    assert len(drawn) == 3


@pytest.mark.parametrize("settings", [Split(), Split(test=0.3), Split(test=2), Split(folds=3)])
@pytest.mark.parametrize("units", [4, 10, 37])
def test_the_held_out_units_are_known_without_torch(settings: Split, units: int) -> None:
    frames = single_atoms([*range(units)])
    for seed in range(20):
        told = held_out_units(units, settings, seed)
        assert told == set(split(frames, settings, seed).test.tolist())


def test_folds_of_a_published_split_are_refused() -> None:
    with pytest.raises(ValueError, match="`folds` must be left out"):
        Split(by="published", folds=3)


@pytest.mark.parametrize("settings", [BY_FRAME, BY_TRAJECTORY])
def test_a_seed_fixes_the_split(settings: Split) -> None:
    first, second = (split(TRAJECTORIES, settings, 4) for _ in range(2))
    assert parts(first) == parts(second)


@pytest.mark.parametrize("settings", [BY_FRAME, BY_TRAJECTORY])
def test_another_seed_holds_out_other_frames(settings: Split) -> None:
    tests = [frozenset(split(TRAJECTORIES, settings, seed).test.tolist()) for seed in range(8)]
    assert len(set(tests)) > 4


def test_every_frame_is_held_out_by_some_seed() -> None:
    tests = [split(TRAJECTORIES, BY_TRAJECTORY, seed).test.tolist() for seed in range(60)]
    assert set().union(*tests) == set(range(30))


def test_training_frames_are_in_random_order() -> None:
    # A stage that sees only its first frames must not see one trajectory only.
    train = split(HUNDRED, BY_FRAME, 0).train
    assert np.abs(np.corrcoef(train, np.arange(81))[0, 1]) < 0.4
    first = TRAJECTORIES.groups[split(TRAJECTORIES, BY_TRAJECTORY, 0).train[:8]]
    assert len(set(first)) > 4


@pytest.mark.parametrize("settings", [BY_FRAME, BY_TRAJECTORY])
@pytest.mark.parametrize("units", [1, 2])
def test_too_few_units_are_refused(settings: Split, units: int) -> None:
    with pytest.raises(UserError, match="every part needs a frame"):
        split(single_atoms(list(range(units))), settings, 0)


# The last ten frames repeat the first ten, with other labels and groups.
REPEATING = replace(
    HUNDRED, positions=np.concatenate([HUNDRED.positions[:90], HUNDRED.positions[:10]])
)


@pytest.mark.parametrize("settings", [BY_FRAME, BY_TRAJECTORY])
@pytest.mark.parametrize("seed", range(5))
def test_equal_frames_are_never_in_two_parts(settings: Split, seed: int) -> None:
    contents = [
        {tuple(row) for row in REPEATING.positions[part]}
        for part in parts(split(REPEATING, settings, seed))
    ]
    assert sum(map(len, contents)) == len(set().union(*contents)) == 90
    assert sum(map(len, parts(split(REPEATING, settings, seed)))) == 100


def test_groups_that_share_a_frame_are_one() -> None:
    chained = replace(single_atoms([0, 0, 1, 1, 2, 2, 3]), groups=np.array([0, 0, 1, 1, 2, 2, 3]))
    positions = chained.positions.copy()
    positions[2], positions[4] = positions[1], positions[3]
    first, *others = units_of(replace(chained, positions=positions), "trajectory").tolist()
    assert others[:5] == [first] * 5
    assert others[5] != first


@pytest.mark.parametrize("change", ["numbers", "cells"])
def test_frames_that_differ_in_element_or_cell_are_not_equal(change: str) -> None:
    frames = replace(single_atoms([0, 1]), positions=np.zeros((2, 3)))
    assert len(set(units_of(frames, "frame"))) == 1
    changed = getattr(frames, change).copy()
    changed[1] = changed[1] + 1
    assert len(set(units_of(replace(frames, **{change: changed}), "frame"))) == 2


def test_sizes_count_what_a_split_deals_out() -> None:
    sizes = sizes_of(REPEATING)
    assert (sizes.frames, sizes.units("frame"), sizes.units("trajectory")) == (100, 90, 90)
    assert sizes.copies == ((1, 80), (2, 10))
    assert [sizes.fewest_frames("frame", n) for n in (0, 1, 80, 81, 90)] == [0, 1, 80, 82, 100]
    assert sizes_of(TRAJECTORIES).groups == ((3, 10),)


@pytest.mark.parametrize("settings", [BY_FRAME, BY_TRAJECTORY])
@pytest.mark.parametrize("frames", [HUNDRED, TRAJECTORIES, REPEATING])
def test_no_split_trains_on_fewer_frames_than_promised(settings: Split, frames: Frames) -> None:
    sizes = sizes_of(frames)
    train = settings.counts(sizes.units(settings.by))[0]
    found = min(len(split(frames, settings, seed).train) for seed in range(20))
    assert found >= sizes.fewest_frames(settings.by, train)


def test_parts_that_share_a_frame_are_refused() -> None:
    with pytest.raises(UserError, match="must not share frames"):
        Splits(np.array([0, 1]), np.array([2]), np.array([1]))


@pytest.mark.parametrize(
    "other",
    [([0, 1], [2], [4]), ([1, 0], [2], [3]), ([0], [1, 2], [3]), ([0, 1], [3], [2])],
    ids=["frame", "order", "border", "role"],
)
def test_the_hash_changes_with_the_content(other: tuple[list[int], ...]) -> None:
    first = Splits(np.array([0, 1]), np.array([2]), np.array([3]))
    again = Splits(np.array([0, 1]), np.array([2]), np.array([3]))
    assert first.content_hash() == again.content_hash()
    assert Splits(*map(np.array, other)).content_hash() != first.content_hash()


def test_a_split_is_stored_under_its_hash_and_only_once(tmp_path: Path) -> None:
    parts = Splits(np.array([2, 0]), np.array([3]), np.array([1]))
    parts.save(tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stem == parts.content_hash()
    written = path.stat().st_mtime_ns
    parts.save(tmp_path)
    assert path.stat().st_mtime_ns == written
    assert json.loads(path.read_text()) == {"train": [2, 0], "validation": [3], "test": [1]}


@pytest.mark.parametrize("cutoff", [2.0, 3.4, 5.0, 10.0])
@pytest.mark.parametrize("largest", [5, 99])
def test_the_neighbours_of_molecules_are_estimated_about_as_they_are_counted(
    cutoff: float, largest: int
) -> None:
    molecules = ase_file.g2()
    molecules = molecules.select(
        np.flatnonzero((molecules.sizes > 2) & (molecules.sizes <= largest))
    )
    edges = GraphSet.build(molecules, cutoff).gather(torch.arange(len(molecules))).num_edges
    estimated = sizes_of(molecules).neighbours(cutoff)
    assert estimated == pytest.approx(edges / len(molecules.numbers), rel=0.5)
    if cutoff == 10:
        assert estimated * len(molecules.numbers) == pytest.approx(edges)


def test_vacuum_around_a_molecule_has_no_neighbours(water: Frames) -> None:
    molecules = ase_file.g2()
    wider = replace(molecules, cells=2 * molecules.cells)
    assert sizes_of(wider).density == pytest.approx(sizes_of(molecules).density)
    periodic = sizes_of(water)
    assert periodic.others is None
    assert periodic.density == pytest.approx(len(water.numbers) / np.linalg.det(water.cells).sum())


def test_a_part_without_a_label_to_learn_is_refused_with_the_counts() -> None:
    forces = HUNDRED.forces.copy()
    forces[10:] = np.nan
    frames = replace(HUNDRED, forces=forces)
    parts = np.arange(20), np.arange(5, 30), np.arange(50, 60)
    require_labels(frames, parts, ["energy"])
    with pytest.raises(UserError, match=r"labelled with forces, but .* test have \[10, 5, 0\]"):
        require_labels(frames, parts, ["energy", "forces"])


def test_sizes_count_the_labels_and_the_isolated_frames() -> None:
    energies, pbc = HUNDRED.energies.copy(), np.ones((100, 3), bool)
    energies[3:7], pbc[:2] = np.nan, False
    sizes = sizes_of(replace(HUNDRED, energies=energies, pbc=pbc))
    assert sizes.labelled == (96, 100)
    assert sizes.partial_labels == "energy of 96 of 100 frames"
    assert sizes.isolated == 2
    assert Sizes.from_json(json.loads(json.dumps(asdict(sizes)))) == sizes
    assert sizes_of(HUNDRED).partial_labels == ""


def test_equal_atoms_in_other_lattices_are_other_frames() -> None:
    twice = HUNDRED.select(np.array([5, 5, 5]))
    pbc = np.array([[True] * 3, [True, True, False], [True] * 3])
    assert units_of(replace(twice, pbc=pbc), "frame").tolist() == [0, 1, 0]


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_number_that_no_set_has_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="less than or equal to"):
        Split(**{part: int("1" * 400)})


def test_a_split_of_many_frames_is_found_again_unless_its_files_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "MANY", 100)
    made = []
    monkeypatch.setattr(splits, "split", lambda *asked: made.append(asked) or split(*asked))

    def once(seed: int = 0, code: str = "code") -> list[tuple[str, str | int]]:
        parts, facts = split_once(HUNDRED, Split(), seed, tmp_path, ["data", code])
        expected = split(HUNDRED, Split(), seed)
        assert all(np.array_equal(vars(parts)[name], vars(expected)[name]) for name in vars(parts))
        assert facts["split_hash"] == expected.content_hash()
        return sorted(facts.items())

    assert once() == once()
    assert len(made) == 1
    once(seed=1)
    once(code="other")
    assert len(made) == 3
    for name in ("arrays.json", "train.npy", "facts.npy"):
        for path in tmp_path.glob(f"of-*/{name}"):
            path.write_bytes(path.read_bytes()[:-9])
        facts = once(), once(seed=1)
        assert facts == (once(), once(seed=1))
    assert len(made) == 9
