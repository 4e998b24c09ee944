"""Predictions of energies, forces, stresses and scalar properties by trained models."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Batch, Data

from study.core.atomic_io import DamagedFileError
from study.core.errors import UserError
from study.core.quantities.properties import PROPERTIES
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.inference.trained_model import TrainedTrial, resolve_trained_model
from study.models.build import build_model
from study.models.potential import Potential, Prediction
from study.space.plugin_configs import accept_code, realized
from study.tasks.scalar import POOLINGS, predict_scalar
from study.training.checkpoint import load_tensors

if TYPE_CHECKING:
    from ase import Atoms

    from study.tasks.config import Scalar

FloatType = Literal["float32", "float64"]
Array = NDArray[np.float64]


class Predicted(NamedTuple):
    """What a potential predicts of a structure.

    Args:
        energy: eV, with reference energies.
        forces: (N, 3) eV/Å.
        stress: (3, 3) eV/Å³ as ASE counts it; none if the model is not conservative, or the
            structure not periodic along all three vectors.
    """

    energy: float
    forces: Array
    stress: Array | None


class TrainedModel:
    """A trained model with the same neighbour lists, units and references as in training.

    Args:
        trained: the trial and its weights.
        device: torch device.
        precision: float32 as in training, or float64 to resolve small differences.
    """

    def __init__(
        self, trained: TrainedTrial, device: str = "cpu", precision: FloatType = "float32"
    ) -> None:
        self.trained, self.device = trained, device
        self.dtype = getattr(torch, precision)
        self.model = _loaded(trained).eval()
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            # Reference energies are float64 and stay so; they exceed the precision of float32.
            dtype = self.dtype if tensor.dtype == torch.float32 else tensor.dtype
            tensor.data = tensor.data.to(device, dtype)

    def batches(self, structures: Sequence[Atoms]) -> Iterator[Batch]:
        """Collate structures in order, in batches of the training's batch size.

        Raises:
            UserError: if one is not periodic, though the training frames were, or has an element
                that no training frame had.
        """
        self.check(structures)
        size = self.trained.job.trial.finetune.batch_size
        for first in range(0, len(structures), size):
            yield self.graph(structures[first : first + size])

    def check(self, structures: Sequence[Atoms]) -> None:
        """Raise `UserError` if a structure is none that the model can predict; see `batches`."""
        for number, atoms in enumerate(structures):
            self._raise_if_unsupported(atoms, f"structure {number} (from 0)")

    def graph(self, structures: Sequence[Atoms]) -> Batch:
        """Collate structures into one batch, preprocessed as the training frames were."""
        return self.graph_of(unlabelled(structures))

    def graph_of(self, frames: Frames) -> Batch:
        """Collate frames into one batch, preprocessed as the training frames were."""
        cutoff = self.trained.job.trial.model.cutoff
        graphs = GraphSet.build(frames, cutoff, self.dtype, self.device)
        batch = graphs.gather(torch.arange(len(graphs)))
        self.add_mask(batch)
        return batch

    def add_mask(self, graph: Data) -> None:
        """Add the mask of unmasked atoms in place, if the model was finetuned with one."""
        if self.trained.job.trial.finetune.task.embeds_mask:
            graph.masked = torch.zeros_like(graph.z)

    def _raise_if_unsupported(self, atoms: Atoms, where: str) -> None:
        if not atoms.pbc.any() and not self.trained.molecular:
            raise UserError(
                f"{where}: must have a periodic cell, as the frames that the model was trained on, "
                f"but pbc is {atoms.pbc.tolist()}; set one with `atoms.cell` and `atoms.pbc`"
            )
        vectors = atoms.cell.array[atoms.pbc]
        if np.linalg.matrix_rank(vectors) < len(vectors):
            raise UserError(
                f"{where}: must have a periodic cell, but its vectors along pbc "
                f"{atoms.pbc.tolist()} are {vectors.tolist()}; set `atoms.cell`, or `atoms.pbc`"
            )
        unknown = set(atoms.numbers.tolist()) - self.trained.elements
        if self.trained.elements and unknown:
            symbols = sorted({str(atom.symbol) for atom in atoms if atom.number in unknown})
            raise UserError(
                f"{where}: has {', '.join(symbols)}, which no frame had that the model was "
                "trained on; train one on data with these elements"
            )


class TrainedPotential(TrainedModel):
    """A trained model of energies and forces.

    Raises:
        UserError: if the model was trained on something else.
    """

    def __init__(
        self, trained: TrainedTrial, device: str = "cpu", precision: FloatType = "float32"
    ) -> None:
        require_potential(trained)
        super().__init__(trained, device, precision)

    def predict(self, structures: Sequence[Atoms]) -> Iterator[Predicted]:
        """Predict the total energy, forces and, if there is one, the stress of each structure.

        Raises:
            UserError: see `batches`.
        """
        strained = self.model.gives_stress and any(atoms.pbc.all() for atoms in structures)
        for batch in self.batches(structures):
            predicted = self.model.with_stress(batch) if strained else self.model(batch)
            energies = predicted.energy.detach().double() + self.model.reference_energy(batch)
            forces = predicted.forces.detach().double().split(batch.ptr.diff().tolist())
            for energy, vectors, stress in zip(
                energies.tolist(), forces, _stresses(predicted), strict=True
            ):
                yield Predicted(energy, vectors.cpu().numpy(), stress)


class TrainedScalar(TrainedModel):
    """A trained model of one number per structure, from a trial with `task: {name: scalar}`."""

    @property
    def settings(self) -> Scalar:
        """Settings of the task."""
        task: Scalar = self.trained.job.trial.finetune.task  # type: ignore[assignment]
        return task

    @property
    def unit(self) -> str:
        """Unit of the predicted number."""
        target = self.settings.target
        return "eV" if target == "energy" else PROPERTIES[target].unit

    def predict(self, structures: Sequence[Atoms]) -> Iterator[float]:
        """Predict the number of each structure, in `unit`.

        Raises:
            UserError: see `batches`.
        """
        pool = POOLINGS[self.settings.extensive]
        for batch in self.batches(structures):
            yield from predict_scalar(pool, self.model, batch).detach().tolist()


def load_potential(
    model: str | Path, device: str, precision: FloatType, *, trust: bool
) -> TrainedPotential:
    """Load the potential at a path, with a warning if other code trained it.

    Args:
        model: as in `resolve_trained_model`.
        device: torch device.
        precision: see `TrainedModel`.
        trust: run code that came with the model, though this user has not accepted it before.

    Raises:
        UserError: if there is no trained model, or its code is not to be trusted.
    """
    trained = resolve_trained_model(Path(model))
    accept_code(trained.job.to_json(), trained.root, lambda *_: trust)
    if trained.outdated:
        warnings.warn(
            f"{trained.label}: trained by another version of the code or of torch; predictions "
            "may differ from those tested",
            stacklevel=3,
        )
    return TrainedPotential(trained, device, precision)


def require_potential(trained: TrainedTrial) -> None:
    """Raise `UserError` unless the model predicts energies and forces."""
    task = trained.job.trial.finetune.task
    if not task.trains_potential:
        raise UserError(
            f"{trained.weights.parent}: learned {task.label}, and predicts no energies with "
            "forces; name a trial that learned these, or predict with `python -m study.predict`"
        )


def _stresses(predicted: Prediction) -> list[Array | None]:
    """The stress of each structure of a batch, none of those without a volume."""
    if predicted.stress is None:
        return [None] * len(predicted.energy)
    stresses = predicted.stress.detach().double().cpu().numpy()
    return [None if np.isnan(stress).any() else stress for stress in stresses]


def _loaded(trained: TrainedTrial) -> Potential:
    trial = trained.job.trial
    model = build_model(realized(trial, trained.root).model, trial.seed)
    try:
        model.load_state_dict(load_tensors(trained.weights))
    except (DamagedFileError, RuntimeError) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise UserError(
            f"{trained.weights}: cannot be loaded ({reason}); take the version of the code that "
            "trained it, or train it again"
        ) from None
    return model


def unlabelled(structures: Sequence[Atoms]) -> Frames:
    """Convert ASE structures to frames with zero labels."""
    sizes = [len(atoms) for atoms in structures]
    return Frames(
        numbers=np.concatenate([atoms.numbers for atoms in structures]),
        positions=np.concatenate([atoms.positions for atoms in structures]),
        forces=np.zeros((sum(sizes), 3)),
        offsets=np.cumsum([0, *sizes]),
        cells=np.stack([atoms.cell.array for atoms in structures]),
        energies=np.zeros(len(sizes)),
        groups=np.zeros(len(sizes), np.int64),
        pbc=np.stack([atoms.pbc for atoms in structures]),
    )
