"""Masking of bonded neighbourhoods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from study.core.errors import UserError
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.models.build import build_model
from study.models.config import EGNN
from study.tasks.config import Masking as Settings
from study.tasks.masking import Masking
from tests.molecules import EDGE, graphs_of, molecules


def masking(frames: Frames, ratio: float = 1.0, **settings: object) -> Masking:
    given = {"name": "masking", "masking_ratio": ratio, "within": "bonds", **settings}
    return Masking(Settings.model_validate(given), graphs_of(frames))


@pytest.mark.parametrize("atom", ["hydrogen", "any"])
def test_atoms_point_to_the_hidden_one_over_the_faces_of_the_cell(atom: str) -> None:
    frames = molecules("CH3CH2OH", "CH3COOH", "CF4" if atom == "any" else "CH4")
    task = masking(frames, atom=atom)
    indices = torch.arange(3)
    for seed in range(10):
        masked = task.example(indices, seeded(seed))
        graph, whole = masked.graph, task.graphs.gather(indices)
        there = {tuple(place) for place in graph.pos.tolist()}
        hidden = [place for place in whole.pos.tolist() if tuple(place) not in there]
        assert len(hidden) == len(whole.z) - len(graph.z) == len(task.groups.rows.rows(indices)[0])
        for atom_at, direction in zip(graph.pos[masked.atoms], masked.directions, strict=True):
            back = torch.tensor(hidden, dtype=torch.float64) - atom_at
            back -= EDGE * torch.round(back / EDGE)
            cosines = back @ direction / back.norm(dim=1)
            assert cosines.max().item() == pytest.approx(1, abs=1e-9)
            assert back[cosines.argmax()].norm() < 3
        assert graph.masked.sum().item() == len(masked.atoms)
        assert len(set(masked.atoms.tolist())) == len(masked.atoms)


def test_only_the_element_that_is_asked_for_is_hidden() -> None:
    frames = molecules("CH3COOH", "CH3CH2OH")
    task = masking(frames)
    for seed in range(10):
        left = task.example(torch.arange(2), seeded(seed)).graph.z
        gone = Counter(frames.numbers.tolist()) - Counter(left.tolist())
        assert gone == Counter({1: 5})


def test_every_terminal_atom_goes_equally_often() -> None:
    task = masking(molecules("CH4"))
    hidden = Counter()
    for seed in range(400):
        left = task.example(torch.tensor([0]), seeded(seed)).graph.pos
        gone = [n for n, place in enumerate(task.graphs.pos) if not (left == place).all(1).any()]
        hidden.update(gone)
    assert sorted(hidden) == [1, 2, 3, 4]
    assert min(hidden.values()) > 70


def test_a_ratio_too_low_for_most_frames_is_refused() -> None:
    with pytest.raises(UserError, match=r"masking_ratio \* neighbourhoods.* holds in 0 of 1"):
        masking(molecules("CH4"), ratio=0.5)
    with pytest.raises(UserError, match=r"holds in 1 of 3 with masking_ratio=0\.5; raise it"):
        masking(molecules("CH4", "CH3CH2OH", "CH4"), ratio=0.5)


def test_a_small_molecule_loses_one_atom_and_one_without_bonds_to_hide_none() -> None:
    frames = molecules("CH3CH2OH", "CH4", "CH3COOH", "O2")
    task = masking(frames, ratio=0.7)
    left = [len(task.example(torch.tensor([frame]), seeded(0)).graph.z) for frame in range(4)]
    # With hydrogens ethanol has CH3, CH2 and OH, acetic acid CH3 and OH: int(2.1), int(1.4).
    assert left == [9 - 2, 5 - 1, 8 - 1, 2]


@pytest.mark.parametrize("loss", ["cosine", "distance"])
def test_a_batch_in_which_nothing_is_hidden_teaches_nothing(loss: str) -> None:
    task = masking(molecules("CH3CH2OH", "O2"), loss=loss)
    model = build_model(EGNN(name="egnn", hidden=8, layers=1), 0).double()
    (term,) = task.terms(torch.tensor([1]), seeded(0))
    value = term.penalty(model, term.batch)
    value.backward()
    slopes = [each.grad for each in model.parameters() if each.grad is not None]
    assert value == 0
    assert all(not slope.any() for slope in slopes)
    (whole,) = task.terms(torch.tensor([0, 1]), seeded(0))
    (alone,) = task.terms(torch.tensor([0]), seeded(0))
    assert torch.isclose(whole.penalty(model, whole.batch), alone.penalty(model, alone.batch))


def test_validation_frames_without_an_atom_to_hide_are_told() -> None:
    task = masking(molecules("CH3CH2OH", "O2"))
    model = build_model(EGNN(name="egnn", hidden=8, layers=1), 0).double()
    with pytest.raises(UserError, match="no validation frame has an atom to hide"):
        task.evaluate(model, [torch.tensor([1])], seeded(0))


def test_any_atom_of_water_is_no_choice(tiny: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="`atom` must be hydrogen or oxygen within water"):
        tiny(pretrain__task={"name": "masking", "masking_ratio": 0.5, "atom": "any"})
