"""Losses, metrics and statistics of energies and forces against numpy on numbers to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from study.core.quantities.units import HARTREE, KJ_PER_MOL
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.datasets.parsing.array_files import DerivedArrays
from study.graphs import graph_set
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.models.potential import ConservativePotential
from study.tasks.config import EnergyForces as Settings
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.tasks.supervised import fitted_once

Array = NDArray[np.float64]

FORCES = np.array(
    [[3, 4, 0], [0, 0, 0], [0, 0, 1]] + [[0, 0, -5], [1, -1, 0], [0, 2, 0]] + [[0.0, 0, 0]] * 3
)
SLOPE = np.array([0.5, -1.0, 0.25])
REFERENCE, SCALE = -1.0, 2.0


class Slope(ConservativePotential):
    """Energy 1 + x·s for every atom, so the force on each is −s, times the scale."""

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        del graph
        return 1 + positions @ torch.tensor(SLOPE, dtype=positions.dtype)


@pytest.fixture
def two() -> Frames:
    """A frame of three atoms and one of six."""
    positions = np.random.default_rng(0).uniform(0, 6, (9, 3))
    return Frames(
        numbers=np.array([8, 1, 1] * 3),
        positions=positions,
        forces=FORCES,
        offsets=np.array([0, 3, 9]),
        cells=np.stack([6 * np.eye(3)] * 2),
        energies=np.array([-2.7, -6.6]),
        groups=np.array([0, 1]),
    )


@pytest.fixture
def model() -> ConservativePotential:
    model = Slope()
    model.reference.fill_(REFERENCE)
    model.scale.fill_(SCALE)
    return model.double()


@pytest.fixture
def energy_errors(two: Frames) -> Array:
    """(2,) eV, predicted minus true energy of each frame."""
    atomic = SCALE * (1 + two.positions @ SLOPE) + REFERENCE
    return np.array([atomic[:3].sum(), atomic[3:].sum()]) - two.energies


FORCE_ERRORS = -SCALE * SLOPE - FORCES


def task_of(frames: Frames, **settings: object) -> EnergyForces:
    graphs = GraphSet.build(frames, 3.4, dtype=torch.float64)
    statistics = LabelStatistics(REFERENCE, energy_std=0.5, energy_std_per_atom=0.25, force_rms=4.0)
    return EnergyForces(Settings(name="energy_forces", **settings), graphs, statistics)


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def test_metrics_are_those_of_numpy(
    two: Frames, model: ConservativePotential, energy_errors: Array
) -> None:
    errors = task_of(two).errors(model, [torch.tensor([0]), torch.tensor([1])])
    per_atom = energy_errors / [3, 6]
    expected = {
        "force_rmse": rms(FORCE_ERRORS),
        "force_mae": np.abs(FORCE_ERRORS).mean(),
        "energy_rmse": rms(per_atom),
        "energy_mae": np.abs(per_atom).mean(),
        "frame_energy_rmse": rms(energy_errors),
    }
    assert errors == pytest.approx(expected, rel=1e-12)


def test_metrics_do_not_depend_on_how_frames_are_batched(
    two: Frames, model: ConservativePotential
) -> None:
    task = task_of(two)
    together = task.errors(model, [torch.tensor([1, 0])])
    assert together == pytest.approx(task.errors(model, [torch.tensor([0]), torch.tensor([1])]))


def test_validation_metrics_are_the_errors_with_a_prefix(
    two: Frames, model: ConservativePotential
) -> None:
    task, batches = task_of(two), [torch.tensor([0, 1])]
    errors = task.errors(model, batches)
    expected = {f"val_{name}": value for name, value in errors.items()}
    assert task.evaluate(model, batches, seeded(0)) == expected


def huber(errors: Array) -> float:
    small = np.abs(errors) < 1
    return float(np.where(small, errors**2 / 2, np.abs(errors) - 0.5).mean())


PENALTIES: dict[str, Callable[[Array], float]] = {
    "l1": lambda errors: float(np.abs(errors).mean()),
    "l2": lambda errors: float(np.square(errors).mean()),
    "huber": huber,
}


@pytest.mark.parametrize("loss", PENALTIES)
def test_the_loss_weighs_errors_in_units_of_their_labels(
    loss: str, two: Frames, model: ConservativePotential, energy_errors: Array
) -> None:
    task = task_of(two, loss=loss, energy_weight=0.3, force_weight=7.0)
    penalty = PENALTIES[loss]
    expected = 0.3 * penalty(energy_errors / 0.5) + 7.0 * penalty(FORCE_ERRORS / 4.0)
    actual = task.loss(model, torch.tensor([0, 1]), seeded(0)).item()
    assert actual == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("settings", [{"energy_weight": 0.0}, {"force_weight": 0.0}])
def test_a_weight_of_zero_takes_its_part_out_of_the_loss(
    settings: dict[str, float], two: Frames, model: ConservativePotential, energy_errors: Array
) -> None:
    parts = {
        "energy_weight": np.square(energy_errors / 0.5).mean(),
        "force_weight": np.square(FORCE_ERRORS / 4.0).mean(),
    }
    (left,) = set(parts) - set(settings)
    task = task_of(two, **settings, **{left: 1.0})
    assert task.loss(model, torch.tensor([0, 1]), seeded(0)).item() == pytest.approx(parts[left])


def test_trivial_errors_are_those_of_no_force_and_the_mean_energy(
    two: Frames, model: ConservativePotential
) -> None:
    errors = task_of(two).trivial_errors(model, [torch.tensor([0, 1])])
    # The labels −2.7 and −6.6 eV are 0.3 above and 0.6 below −1 eV per atom.
    assert errors["frame_energy_rmse"] == pytest.approx(np.sqrt((0.3**2 + 0.6**2) / 2))
    assert errors["energy_rmse"] == errors["energy_mae"] == pytest.approx(0.1)
    # 9 + 16 + 1 + 25 + 2 + 4 over 27 components.
    assert errors["force_rmse"] == pytest.approx(np.sqrt(57 / 27))
    assert errors["force_mae"] == pytest.approx(17 / 27)


@pytest.mark.parametrize("criterion", ["force_rmse", "energy_rmse"])
def test_the_criterion_is_a_validation_metric(
    criterion: str, two: Frames, model: ConservativePotential
) -> None:
    task = task_of(two, criterion=criterion)
    assert task.criterion == f"val_{criterion}"
    assert task.criterion in task.evaluate(model, [torch.tensor([0])], seeded(0))


def test_statistics_are_those_of_numpy(mixed_water: Frames) -> None:
    graphs = GraphSet.build(mixed_water, 3.4, dtype=torch.float64)
    statistics = LabelStatistics.fit(graphs, torch.tensor([3, 0, 1]))
    selected = mixed_water.select(np.array([0, 1, 3]))
    per_atom = np.mean(selected.energies / selected.sizes)
    assert statistics.energy_per_atom == pytest.approx(per_atom, rel=1e-12)
    assert statistics.energy_std == pytest.approx(
        rms(selected.energies - per_atom * selected.sizes)
    )
    assert statistics.force_rms == pytest.approx(rms(selected.forces))


def test_statistics_see_only_the_frames_given(water: Frames) -> None:
    energies, forces = water.energies.copy(), water.forces.copy()
    energies[7:], forces[7 * 24 :] = 1e6, 1e6
    changed = replace(water, energies=energies, forces=forces)
    first, second = (
        LabelStatistics.fit(GraphSet.build(frames, 3.4), torch.arange(7))
        for frames in (water, changed)
    )
    assert first == second


def test_a_fitted_model_puts_out_energies_about_the_mean_in_units_of_the_forces(
    two: Frames, model: ConservativePotential
) -> None:
    LabelStatistics(-20.5, energy_std=0.5, energy_std_per_atom=0.25, force_rms=4.0).apply(
        model, Settings(name="energy_forces")
    )
    batch = task_of(two).graphs.gather(torch.tensor([0, 1]))
    assert model.reference_energy(batch).tolist() == [-20.5 * 3, -20.5 * 6]
    np.testing.assert_allclose(model(batch).forces[0], -4.0 * SLOPE)


def errors_and_loss(frames: Frames, settings: EGNN) -> dict[str, float]:
    """Of a model in single precision, fitted to the frames' statistics."""
    graphs, selected = GraphSet.build(frames, 3.4), torch.arange(len(frames))
    statistics, model = LabelStatistics.fit(graphs, selected), build_model(settings, seed=0).eval()
    chosen_settings = Settings(name="energy_forces", energy_weight=1.0)
    statistics.apply(model, chosen_settings)
    task = EnergyForces(chosen_settings, graphs, statistics)
    loss = task.loss(model, selected, seeded(0)).item()
    return task.errors(model, [selected]) | {"loss": loss}


def test_a_huge_energy_per_atom_costs_no_precision(mixed_water: Frames, egnn: EGNN) -> None:
    huge = replace(mixed_water, energies=mixed_water.energies - 3e4 * mixed_water.sizes)
    assert huge.energies.min() < -7e5
    # One bit of an energy of −7e5 eV in single precision is 0.06 eV; in double it is 1e-10 eV.
    expected = errors_and_loss(mixed_water, egnn)
    assert errors_and_loss(huge, egnn) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "reference", "scale"),
    [
        ({}, -20.5, 4.0),
        ({"energy_reference": "none"}, 0.0, 4.0),
        ({"energy_reference": "per_frame"}, 0.0, 4.0),
        ({"energy_reference": "per_frame", "output_scale": "energy_std"}, 0.0, 0.25),
        ({"output_scale": "energy_std"}, -20.5, 0.5),
        ({"output_scale": "one"}, -20.5, 1.0),
    ],
)
def test_reference_and_scale_are_those_asked_for(
    settings: dict[str, str], reference: float, scale: float, model: ConservativePotential
) -> None:
    statistics = LabelStatistics(-20.5, energy_std=0.5, energy_std_per_atom=0.25, force_rms=4.0)
    statistics.apply(model, Settings(name="energy_forces", **settings))
    assert (model.reference[8].item(), model.scale.item()) == (reference, scale)


def test_the_released_reference_is_one_mean_per_frame_in_deviations_per_atom(
    water: Frames, egnn: EGNN
) -> None:
    frames, selected = water.select(np.arange(4)), torch.arange(4)
    settings = Settings(name="energy_forces", energy_reference="per_frame", force_weight=0)
    graphs, model = GraphSet.build(frames, 3.4), build_model(egnn, seed=0)
    statistics = LabelStatistics.fit(graphs, selected)
    statistics.apply(model, settings)
    per_atom = frames.energies / frames.sizes
    assert model.reference_energy(graphs.gather(selected)).tolist() == [
        pytest.approx(per_atom.mean())
    ] * len(frames)
    model.zero_init_readout()
    loss = EnergyForces(settings, graphs, statistics).loss(model, selected, seeded(0))
    expected = np.mean(((frames.energies - per_atom.mean()) / per_atom.std()) ** 2)
    assert loss.item() == pytest.approx(0.001 * expected, rel=1e-5)


def test_the_released_unit_and_offset_are_products_in_its_own_unit(water: Frames) -> None:
    frames, selected = water.select(np.arange(5)), torch.arange(5)
    graphs, model = GraphSet.build(frames, 3.4, dtype=torch.float64), Slope().double()
    options = {"energy_reference": "frame_and_atoms", "output_scale": "energy_variance"}
    statistics = LabelStatistics.fit(graphs, selected)
    for kind, energies in (
        ("per_frame", frames.energies),
        ("per_atom", frames.energies / frames.sizes),
    ):
        for unit, size in (("eV", 1.0), ("kJ/mol", KJ_PER_MOL), ("Hartree", HARTREE)):
            settings = Settings(
                name="energy_forces", energy_statistics=kind, energy_unit=unit, **options
            )
            statistics.apply(model, settings)
            mean, std = energies.mean() / size, energies.std() / size
            assert model.scale.item() == pytest.approx(std * std * size)
            assert model.reference[1].item() == pytest.approx(std * mean * size)
            assert model.frame_reference.item() == pytest.approx(mean * size)
            assert statistics.energy_unit(settings) == pytest.approx(std * size)


def test_both_errors_may_be_measured_in_the_unit_of_the_energy(
    two: Frames, model: ConservativePotential, energy_errors: Array
) -> None:
    task = task_of(two, loss="l1", energy_weight=1.0, force_weight=500.0, error_unit="energy")
    expected = (np.abs(energy_errors).mean() + 500 * np.abs(FORCE_ERRORS).mean()) / 0.5
    actual = task.loss(model, torch.tensor([0, 1]), seeded(0)).item()
    assert actual == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"energy_statistics": "per_frame"}, "`energy_reference` must be per_frame or"),
        ({"energy_unit": "kJ/mol"}, "`energy_unit` needs `output_scale: energy_variance`"),
    ],
)
def test_readings_that_would_change_nothing_are_refused(
    settings: dict[str, str], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        Settings(name="energy_forces", **settings)


def test_the_trivial_predictor_is_the_mean_energy_whatever_the_reference(
    two: Frames, model: ConservativePotential
) -> None:
    frames = [torch.tensor([0, 1])]
    expected = task_of(two).trivial_errors(model, frames)
    model.reference.zero_()
    assert task_of(two, energy_reference="none").trivial_errors(model, frames) == expected


@pytest.mark.parametrize(("error", "hopeless"), [(7.9, False), (8.1, True), (1e6, True)])
def test_errors_above_twice_the_forces_are_hopeless(
    error: float, two: Frames, *, hopeless: bool
) -> None:
    assert bool(task_of(two).divergence_reason({"val_force_rmse": error})) == hopeless
    assert not task_of(two, divergence=None).divergence_reason({"val_force_rmse": error})


class Marked(Slope):
    """Notes the marks it is given."""

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        self.marks = graph.masked.tolist() if "masked" in graph else None
        return super().atomic_energies(graph, positions)


@pytest.mark.parametrize(("option", "marks"), [("zeros", [0] * 9), ("none", None)])
def test_finetuning_gives_the_unmasked_embedding_or_none(
    option: str, marks: list[int] | None, two: Frames
) -> None:
    model = Marked().double()
    task_of(two, mask_embedding=option).loss(model, torch.tensor([0, 1]), seeded(0))
    assert model.marks == marks


def test_energies_of_elements_are_fitted_to_frames_of_different_composition(
    triclinic_water: Frames, egnn: EGNN
) -> None:
    numbers = triclinic_water.numbers.copy()
    for frame in range(4):
        numbers[24 * frame : 24 * frame + 3 * frame] = 6
    true = np.zeros(119)
    true[[1, 6, 8]] = -13.6, -1030.0, -2041.0
    totals = np.add.reduceat(true[numbers], triclinic_water.offsets[:-1])
    frames = replace(
        triclinic_water, numbers=numbers, energies=totals + np.array([0.1, -0.1, 0, 0])
    )
    graphs = GraphSet.build(frames, 3.4, dtype=torch.float64)
    statistics = LabelStatistics.fit(graphs, torch.arange(4))
    settings = Settings(name="energy_forces", energy_reference="per_element")
    model = build_model(egnn, seed=0).double().eval()
    statistics.apply(model, settings)
    fitted = np.linalg.lstsq(
        np.stack([[(part == z).sum() for z in (1, 6, 8)] for part in numbers.reshape(4, -1)]),
        frames.energies,
        rcond=None,
    )[0]
    # Two hydrogens go with each oxygen, so only what keeps their sum is known.
    references = model.reference[torch.tensor([1, 6, 8])].numpy()
    assert references[1] == pytest.approx(fitted[1])
    assert 2 * references[0] + references[2] == pytest.approx(2 * fitted[0] + fitted[2])
    assert statistics.energy_unit(settings) < 0.1
    model.zero_init_readout()
    task = EnergyForces(settings, graphs, statistics)
    everything = [torch.arange(4)]
    assert task.errors(model, everything) == task.trivial_errors(model, everything)


def test_in_a_single_composition_all_elements_get_the_mean_per_atom(water: Frames) -> None:
    graphs = GraphSet.build(water, 3.4, dtype=torch.float64)
    statistics = LabelStatistics.fit(graphs, torch.arange(8))
    energies = np.array(statistics.element_energies)
    assert 2 * energies[1] + energies[8] == pytest.approx(3 * statistics.energy_per_atom)
    assert statistics.energy_std_of_elements == pytest.approx(statistics.energy_std)


@pytest.fixture
def some() -> Frames:
    """Four frames: with both labels, without forces, without an energy, without any."""
    rng = np.random.default_rng(1)
    forces = rng.normal(size=(12, 3))
    forces[[3, 4, 5, 9, 10, 11]] = np.nan
    return Frames(
        numbers=np.array([8, 1, 1] * 4),
        positions=rng.uniform(0, 6, (12, 3)),
        forces=forces,
        offsets=np.arange(0, 13, 3),
        cells=np.stack([6 * np.eye(3)] * 4),
        energies=np.array([-2.7, -3.1, np.nan, np.nan]),
        groups=np.arange(4),
    )


@pytest.mark.parametrize("loss", PENALTIES)
@pytest.mark.parametrize("batch", [[0, 1, 2, 3], [1, 3], [2, 3], [3]])
def test_absent_labels_add_nothing_and_do_not_dilute_the_others(
    loss: str, batch: list[int], some: Frames, model: ConservativePotential
) -> None:
    task = task_of(some, loss=loss, energy_weight=0.3, force_weight=7.0)
    atomic = SCALE * (1 + some.positions @ SLOPE) + REFERENCE
    energies = atomic.reshape(4, 3).sum(axis=1)[batch] - some.energies[batch]
    forces = (-SCALE * SLOPE - some.forces.reshape(4, 3, 3))[batch]
    energies, forces = (off[np.isfinite(off)] for off in (energies, forces))
    expected = sum(
        weight * PENALTIES[loss](off / unit)
        for weight, off, unit in ((0.3, energies, 0.5), (7.0, forces, 4.0))
        if len(off)
    )
    weights = model.scale.requires_grad_()
    found = task.loss(model, torch.tensor(batch), seeded(0))
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()
    assert torch.isfinite(weights.grad).all()


def test_metrics_and_statistics_are_of_the_labels_that_are_there(
    some: Frames, model: ConservativePotential
) -> None:
    errors = task_of(some).errors(model, [torch.tensor([0, 3]), torch.tensor([1, 2])])
    atomic = SCALE * (1 + some.positions @ SLOPE) + REFERENCE
    energies = atomic.reshape(4, 3).sum(axis=1)[:2] - some.energies[:2]
    forces = (-SCALE * SLOPE - some.forces)[np.isfinite(some.forces)[:, 0]]
    assert errors == pytest.approx(
        {
            "force_rmse": rms(forces),
            "force_mae": np.abs(forces).mean(),
            "energy_rmse": rms(energies / 3),
            "energy_mae": np.abs(energies / 3).mean(),
            "frame_energy_rmse": rms(energies),
        },
        rel=1e-12,
    )
    graphs = GraphSet.build(some, 3.4, dtype=torch.float64)
    found = LabelStatistics.fit(graphs, torch.arange(4))
    assert found.energy_per_atom == pytest.approx((-2.7 - 3.1) / 6)
    assert found.energy_std == pytest.approx(0.2)
    assert found.force_rms == pytest.approx(rms(some.forces[np.isfinite(some.forces)]))


def test_a_set_with_all_labels_has_the_loss_it_had(two: Frames) -> None:
    (term,) = task_of(two).terms(torch.tensor([0, 1]), seeded(0))
    assert term.name == "l2 of energy and forces"


def test_statistics_of_a_large_set_are_fitted_once_and_found_to_the_bit(
    water: Frames, tmp_path: Path
) -> None:
    graphs = replace(GraphSet.build(water, 3.4), store=DerivedArrays(tmp_path, "water"))
    fitted = []

    def found(frames: Tensor) -> LabelStatistics:
        def fit() -> LabelStatistics:
            fitted.append(frames)
            return LabelStatistics.fit(graphs, frames)

        return fitted_once(LabelStatistics, fit, graphs, frames)

    for frames in (torch.arange(8), torch.tensor([3, 0, 1])):
        assert found(frames) == found(frames) == LabelStatistics.fit(graphs, frames)
    assert len(fitted) == 2


def test_statistics_of_many_atoms_are_those_of_all_at_once(
    every_water: dict[str, Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = every_water["shuffled mixed"]
    energies, forces = mixed.energies.copy(), mixed.forces.copy()
    energies[1], forces[mixed.offsets[2] : mixed.offsets[3]] = np.nan, np.nan
    graphs = GraphSet.build(replace(mixed, energies=energies, forces=forces), 3.4)
    frames = torch.tensor([3, 1, 0, 2])
    whole = LabelStatistics.fit(graphs, frames)
    monkeypatch.setattr(graph_set, "STORED_ATOMS", 0)
    monkeypatch.setattr(graph_set, "ATOMS_AT_ONCE", 10)
    assert graphs.pieces(frames) > 4
    for name, value in vars(LabelStatistics.fit(graphs, frames)).items():
        assert value == pytest.approx(getattr(whole, name), rel=1e-9), name
