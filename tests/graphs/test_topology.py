"""Water molecules are found by distance, whatever the order and wrapping of their atoms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from study.core.errors import UserError
from study.core.quantities.elements import ATOMIC_NUMBERS
from study.datasets.frames import Frames
from study.datasets.parsing.array_files import DerivedArrays
from study.graphs.graph_set import GraphSet
from study.graphs.topology import Neighborhoods, WaterMolecules
from tests.molecules import graphs_of, molecules


def find(frames: Frames, cutoff: float = 3.4) -> WaterMolecules:
    return WaterMolecules.find(GraphSet.build(frames, cutoff, dtype=torch.float64))


def as_sets(molecules: WaterMolecules, frames: Frames) -> set[tuple[int, frozenset[int]]]:
    """(oxygen, hydrogens) of all frames, by row of the flat arrays."""
    frame = np.repeat(np.arange(len(frames)), np.diff(molecules.rows.offsets.numpy()))
    rows = molecules.atoms.numpy() + frames.offsets[frame][:, None]
    return {(row[0], frozenset(row[1:])) for row in rows.tolist()}


@pytest.mark.parametrize("name", ["cubic", "triclinic", "mixed"])
def test_molecules_are_found_in_shuffled_and_wrapped_atoms(
    name: str,
    every_water: dict[str, Frames],
    shuffle: Callable[[Frames, int], tuple[Frames, np.ndarray]],
) -> None:
    frames, came_from = shuffle(every_water[name], 11)
    now_at = np.argsort(came_from)
    expected = {
        (int(now_at[o]), frozenset(now_at[o + 1 : o + 3].tolist()))
        for o in range(0, len(now_at), 3)
    }
    assert as_sets(find(frames), frames) == expected


@pytest.mark.parametrize("cutoff", [1.0, 3.4, 7.0])
def test_any_cutoff_that_sees_the_bonds_finds_the_same_molecules(
    triclinic_water: Frames, cutoff: float
) -> None:
    neighborhoods = as_sets(find(triclinic_water, cutoff), triclinic_water)
    assert neighborhoods == {(o, frozenset({o + 1, o + 2})) for o in range(0, 96, 3)}


@pytest.mark.parametrize("name", ["cubic", "triclinic", "mixed"])
def test_bonds_are_minimum_images_and_belong_to_their_hydrogens(
    name: str,
    every_water: dict[str, Frames],
    shuffle: Callable[[Frames, int], tuple[Frames, np.ndarray]],
) -> None:
    whole = every_water[name]
    shuffled, came_from = shuffle(whole, 3)
    molecules = find(shuffled)
    frame = np.repeat(np.arange(len(whole)), whole.sizes // 3)
    rows = came_from[molecules.atoms.numpy() + shuffled.offsets[frame][:, None]]
    bonds = whole.positions[rows[:, 1:]] - whole.positions[rows[:, :1]]
    np.testing.assert_allclose(molecules.bonds.numpy(), bonds, atol=1e-9)


def test_rows_tell_the_molecules_of_each_frame(mixed_water: Frames) -> None:
    assert find(mixed_water).rows.offsets.tolist() == [0, 8, 12, 20, 24]


def hydroxide_and_hydronium(frames: Frames) -> Frames:
    positions = frames.positions.copy()
    positions[1] = positions[3] + [0, 0, 0.9]
    return replace(frames, positions=positions)


def foreign_element(frames: Frames) -> Frames:
    numbers = frames.numbers.copy()
    numbers[0] = 7
    return replace(frames, numbers=numbers)


def three_hydrogens(frames: Frames) -> Frames:
    numbers = frames.numbers.copy()
    numbers[0] = 1
    return replace(frames, numbers=numbers)


def no_water(frames: Frames) -> Frames:
    return replace(frames, numbers=np.full_like(frames.numbers, 18))


def lost_hydrogen(frames: Frames) -> Frames:
    """The first frame without its second atom."""
    kept = np.arange(len(frames.numbers)) != 1
    return replace(
        frames,
        numbers=frames.numbers[kept],
        positions=frames.positions[kept],
        forces=frames.forces[kept],
        offsets=frames.offsets - (frames.offsets > 0),
    )


@pytest.mark.parametrize(
    "damage",
    [hydroxide_and_hydronium, foreign_element, three_hydrogens, no_water, lost_hydrogen],
)
def test_a_frame_that_is_not_whole_water_is_refused(
    water: Frames, damage: Callable[[Frames], Frames]
) -> None:
    with pytest.raises(UserError, match="whole water molecules"):
        find(damage(water))


def test_a_cutoff_shorter_than_the_bonds_is_refused(water: Frames) -> None:
    with pytest.raises(UserError, match="within the cutoff"):
        find(water, cutoff=0.9)


def described(frames: Frames, hidden: int | None = None) -> list[Counter[tuple[int, str]]]:
    """By frame: element of the centre and of its terminal atoms, each with how often."""
    neighborhoods = Neighborhoods.find(graphs_of(frames), hidden)
    result = []
    for frame in range(len(frames)):
        rows, _ = neighborhoods.rows.rows(torch.tensor([frame]))
        first = frames.offsets[frame]
        kinds: Counter[tuple[int, str]] = Counter()
        for row in rows.tolist():
            members, _ = neighborhoods.members.rows(torch.tensor([row]))
            ends = frames.numbers[neighborhoods.terminals[members].numpy() + first]
            centre = frames.numbers[int(neighborhoods.centres[row]) + first]
            kinds[int(centre), ",".join(map(str, sorted(ends)))] += 1
        result.append(kinds)
    return result


def test_neighbourhoods_of_molecules_are_their_groups() -> None:
    neighborhoods = described(molecules("CH3CH2OH", "C6H6", "CH3COOH", "H2O", "CF4"))
    assert neighborhoods == [
        Counter({(6, "1,1,1"): 1, (6, "1,1"): 1, (8, "1"): 1}),
        Counter({(6, "1"): 6}),
        Counter({(6, "1,1,1"): 1, (6, "8"): 1, (8, "1"): 1}),
        Counter({(8, "1,1"): 1}),
        Counter({(6, "9,9,9,9"): 1}),
    ]


def test_neighbourhoods_without_the_element_to_hide_are_left_out() -> None:
    assert described(molecules("CH3COOH"), ATOMIC_NUMBERS["H"]) == [
        Counter({(6, "1,1,1"): 1, (8, "1"): 1})
    ]


@pytest.mark.parametrize("name", ["cubic", "triclinic", "shuffled mixed"])
def test_in_water_they_are_the_molecules(name: str, every_water: dict[str, Frames]) -> None:
    frames = every_water[name]
    for kinds, size in zip(described(frames), frames.sizes, strict=True):
        assert kinds == Counter({(8, "1,1"): size // 3})


def test_what_is_found_in_a_large_set_is_kept_to_the_bit(water: Frames, tmp_path: Path) -> None:
    graphs = GraphSet.build(water, 3.4)
    large = replace(graphs, store=DerivedArrays(tmp_path, "water"))
    for _ in range(2):  # The second time it is found in files.
        for hidden in (None, 1):
            kept, made = (Neighborhoods.find(each, hidden) for each in (large, graphs))
            for name in ("centres", "terminals", "bonds"):
                assert torch.equal(getattr(kept, name), getattr(made, name))
            for name in ("rows", "members"):
                assert torch.equal(getattr(kept, name).offsets, getattr(made, name).offsets)
        waters = WaterMolecules.find(large), WaterMolecules.find(graphs)
        assert torch.equal(waters[0].atoms, waters[1].atoms)
        assert torch.equal(waters[0].bonds, waters[1].bonds)
        assert torch.equal(waters[0].rows.offsets, waters[1].rows.offsets)
    assert len(list(tmp_path.glob("*/arrays.json"))) == 3
