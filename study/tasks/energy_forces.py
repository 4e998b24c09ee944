"""Supervised training on energies and forces, and on stresses where a task asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.core.errors import UserError
from study.core.quantities.units import ENERGIES
from study.core.seeding import seeded
from study.graphs.element_counts import ElementCounts
from study.graphs.graph_set import GraphSet
from study.models.potential import Potential, Prediction
from study.models.symmetry import symmetry_errors
from study.tasks.supervised import (
    LOSSES,
    WHERE_KNOWN,
    LabelledTask,
    count_labels,
    fitted_once,
    force_rms,
    known_stresses,
    known_values,
    rms,
    some_absent,
    stress_errors,
)
from study.tasks.task import Term

if TYPE_CHECKING:
    from study.tasks.config import EnergyForces as EnergyForcesSettings


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of the training labels; fitted on training frames only.

    Args:
        energy_per_atom: mean energy per atom, eV. Every atom gets this reference, because the
            composition of water, two hydrogens per oxygen, does not determine those of elements.
        energy_std: standard deviation of the frames' energies about the reference, eV.
        energy_std_per_atom: standard deviation of their energies per atom, eV.
        force_rms: root mean square force component, eV/Å.
        element_energies: energy of each element by its atomic number, eV: the least squares fit
            to the frames, the nearest to the mean per atom of those that fit equally well.
        energy_std_of_elements: standard deviation of the frames' energies about these, eV.
        frame_energy: mean energy of the frames, eV.
        frame_energy_std: standard deviation of the frames' energies, eV.
        stress_rms: root mean square stress component, eV/Å³.
    """

    energy_per_atom: float
    energy_std: float
    energy_std_per_atom: float
    force_rms: float
    element_energies: tuple[float, ...] = ()
    energy_std_of_elements: float = 1.0
    frame_energy: float = 0.0
    frame_energy_std: float = 1.0
    stress_rms: float = 1.0

    @classmethod
    def fit(cls, graphs: GraphSet, frames: Tensor) -> LabelStatistics:
        """Fit the statistics to the labels that the given frames (M,) have."""
        # Forces may all vanish, as those of lone atoms do.
        unit, stresses = force_rms(graphs, frames) or 1.0, known_stresses(graphs, frames)
        frames = known_values(frames, graphs.energy[frames].cpu())
        energy, sizes = graphs.energy[frames], graphs.atoms.offsets.diff()[frames].double()
        per_atom = (energy / sizes).mean()
        # A single frame has no standard deviation; then 1 eV serves as the unit.
        spread = rms(energy - per_atom * sizes) or 1.0
        spread_per_atom = rms(energy / sizes - per_atom) or 1.0
        counts, above = ElementCounts.of(graphs, frames), (energy - per_atom * sizes).cpu()
        fitted = counts.fit(above)
        return cls(
            float(per_atom),
            spread,
            spread_per_atom,
            unit,
            tuple((float(per_atom) + fitted).tolist()),
            rms(above - counts.sum(fitted)) or 1.0,
            float(energy.mean()),
            rms(energy - energy.mean()) or 1.0,
            rms(stresses) or 1.0 if len(stresses) else 1.0,
        )

    def apply(self, model: Potential, settings: EnergyForcesSettings) -> None:
        """Set the reference energies and the output scale of a model in place."""
        kind, energy_std = settings.energy_reference, self.energy_unit(settings)
        # Products of two energies are energies in one unit only.
        twice = energy_std / ENERGIES[settings.energy_unit]
        of_atoms = {
            "per_atom": self.energy_per_atom,
            "frame_and_atoms": twice * self._mean(settings),
        }
        model.reference.fill_(of_atoms.get(kind, 0.0))
        if kind == "per_element":
            model.reference.copy_(torch.tensor(self.element_energies, dtype=torch.float64))
        released = kind in ("per_frame", "frame_and_atoms")
        model.frame_reference.fill_(self._mean(settings) if released else 0.0)
        scales = {
            "force_rms": self.force_rms,
            "energy_std": energy_std,
            "energy_variance": twice * energy_std,
            "one": 1.0,
        }
        model.scale.fill_(scales[settings.output_scale])

    def _mean(self, settings: EnergyForcesSettings) -> float:
        """Mean energy, eV, that is taken off each frame."""
        per_frame = settings.energy_statistics == "per_frame"
        return self.frame_energy if per_frame else self.energy_per_atom

    def energy_unit(self, settings: EnergyForcesSettings) -> float:
        """Standard deviation, eV, in whose units energy errors enter the loss."""
        match settings.energy_reference:
            case "per_frame" | "frame_and_atoms":
                per_frame = settings.energy_statistics == "per_frame"
                return self.frame_energy_std if per_frame else self.energy_std_per_atom
            case "per_element":
                return self.energy_std_of_elements
            case _:
                return self.energy_std


class EnergyForces(LabelledTask):
    """Weighted error of energy and forces, each in units of its labels' standard deviation.

    The energy error is the mean over the frames of a batch that have an energy, the force error the
    mean over the components of the frames that have forces. With `stress_weight` the stress error
    is the mean over the nine components of the frames that have a stress; with or without it is
    measured where the model gives stresses and the data have them.
    """

    def __init__(
        self,
        settings: EnergyForcesSettings,
        graphs: GraphSet,
        statistics: LabelStatistics | None = None,
    ) -> None:
        super().__init__(settings, graphs)
        self.settings = settings
        self.criterion = f"val_{settings.criterion}"
        self.learns_stress = settings.stress_weight > 0
        partial_labels = some_absent(graphs.energy) or some_absent(graphs.force)
        if self.learns_stress:
            known = len(known_stresses(graphs, torch.arange(len(graphs))))
            partial_labels |= known < 9 * len(graphs)
        self.loss_kind = settings.loss + WHERE_KNOWN * partial_labels
        if statistics is not None:
            self._measure_by(statistics)

    def prepare(self, model: Potential, train: Tensor) -> None:
        """Measure the labels, and let the model put out energies about their reference.

        Raises:
            UserError: if it is to learn stresses, and the model or the data have none.
        """
        if self.learns_stress:
            self._require_stress(model)
        fit = partial(LabelStatistics.fit, self.graphs, train)
        statistics = fitted_once(LabelStatistics, fit, self.graphs, train)
        statistics.apply(model, self.settings)
        self._measure_by(statistics)

    def _measure_by(self, statistics: LabelStatistics) -> None:
        self.statistics = statistics
        real = partial(torch.tensor, dtype=self.graphs.dtype, device=self.graphs.device)
        spread = statistics.energy_unit(self.settings)
        alike = self.settings.error_unit == "energy"
        units = [spread, spread if alike else statistics.force_rms]
        weights = [self.settings.energy_weight, self.settings.force_weight]
        if self.learns_stress:
            units.append(statistics.stress_rms)
            weights.append(self.settings.stress_weight)
        self.units, self.weights = real(units), real(weights)

    def _require_stress(self, model: Potential) -> None:
        if not model.gives_stress:
            raise UserError(
                "`stress_weight`: must be 0 with a model whose forces are not the gradient of its "
                f"energy, but got {self.settings.stress_weight:g} and {model.settings.name}"
            )
        if self.graphs.stress is None:
            raise UserError(
                "`stress_weight`: must be 0 with data without stresses, but got "
                f"{self.settings.stress_weight:g}"
            )

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        """Weighted errors of a batch, and the terms of the auxiliary task."""
        batch, others = self.training_batch(frames, generator, step)
        batch.units, batch.weights = self.units, self.weights
        kind, what = self.loss_kind, "energy and forces"
        if self.learns_stress and self.graphs.stress is not None:
            batch.stress, what = self.graphs.stresses(frames), "all labels"
        counts = partial(count_labels, kind, ["energy", "force", "stress"])
        errors = Term(f"{kind} of {what}", partial(weighted_errors, kind), batch, counts=counts)
        return [errors, *others]

    def errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """Errors of forces (eV/Å per component) and energies (eV/atom, eV per frame).

        Those of stresses (eV/Å³ per component) are among them where model and data have such.
        """
        predict = model.with_stress if self._compares(model) else model
        errors = partial(self._errors, model, batches)
        return self.with_own_errors(model, batches, predict, errors)

    def test_errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """On the test frames: of the model, of the trivial predictor, of missing symmetry."""
        found = super().test_errors(model, batches)
        if not (model.equivariant and model.conservative):
            generator = seeded("symmetry", device=self.graphs.device)
            found |= symmetry_errors(model, self.gather(batches[0]), generator)
        return found

    def trivial_errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """Errors of predicting zero forces and the training mean of the energy, or of elements."""
        of_elements = self.settings.energy_reference == "per_element"

        def trivial(batch: Batch) -> Prediction:
            energy = self.statistics.energy_per_atom * batch.ptr.diff()
            reference = model.reference_energy(batch)
            forces, stress = torch.zeros_like(batch.force), torch.zeros_like(batch.cell)
            return Prediction((reference if of_elements else energy) - reference, forces, stress)

        errors = partial(self._errors, model, batches)
        return self.with_own_errors(model, batches, trivial, errors, strict=False)

    def divergence_reason(self, metrics: dict[str, float]) -> str:
        """Reason to stop a diverged training by its validation metrics; empty if there is none."""
        limit, error = self.settings.divergence, metrics["val_force_rmse"]
        if limit is None or error <= limit * self.statistics.force_rms:
            return ""
        return (
            f"validation force error {error:.3g} eV/Å exceeds {limit:g} times the root mean square "
            f"force {self.statistics.force_rms:.3g} eV/Å"
        )

    def _compares(self, model: Potential) -> bool:
        """Whether predicted stresses can be compared with labels."""
        return self.graphs.stress is not None and model.gives_stress

    def _errors(
        self,
        model: Potential,
        batches: list[Tensor],
        predict: Callable[[Batch], Prediction],
    ) -> dict[str, float]:
        energy, force, sizes, stress = [], [], [], []
        for frames in batches:
            batch = self.gather(frames)
            predicted = predict(batch)
            label = batch.energy - model.reference_energy(batch)
            off = predicted.energy.detach().double() - label
            energy.append(known_values(off, batch.energy))
            sizes.append(known_values(batch.ptr.diff(), batch.energy))
            off = (predicted.forces.detach() - batch.force).double()
            force.append(known_values(off, batch.force))
            if self.graphs.stress is not None and predicted.stress is not None:
                known = self.graphs.stresses(frames)
                stress.append(known_values((predicted.stress.detach() - known).double(), known))
        per_frame = torch.cat(energy)
        per_atom, component = per_frame / torch.cat(sizes), torch.cat(force)
        found = {
            "force_rmse": rms(component),
            "force_mae": float(component.abs().mean()),
            "energy_rmse": rms(per_atom),
            "energy_mae": float(per_atom.abs().mean()),
            "frame_energy_rmse": rms(per_frame),
        }
        return found | (stress_errors(torch.cat(stress)) if self._compares(model) else {})


def weighted_errors(kind: str, model: Potential, batch: Batch) -> Tensor:
    """Compute () the sum of errors of all labels, in `batch.units` and by `batch.weights`.

    The stress is among them if the batch has such labels.
    """
    penalty = LOSSES[kind]
    predicted = model.with_stress(batch) if "stress" in batch else model(batch)
    energy = (batch.energy - model.reference_energy(batch)).to(predicted.energy.dtype)
    spread, rms, *more = batch.units
    errors = [
        penalty(predicted.energy / spread, energy / spread),
        penalty(predicted.forces / rms, batch.force / rms),
    ]
    if predicted.stress is not None:
        errors.append(penalty(predicted.stress / more[0], batch.stress / more[0]))
    return torch.dot(batch.weights, torch.stack(errors))
