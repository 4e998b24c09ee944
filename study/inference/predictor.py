"""Trained models that predict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Batch, Data

from study.core.atomic_io import DamagedFileError
from study.core.errors import UserError
from study.core.properties import PROPERTIES
from study.datasets.frames import Frames
from study.datasets.readers.conformers import box
from study.graphs.graph_set import GraphSet
from study.inference.trained_model import TrainedTrial
from study.models.build import build_model
from study.models.potential import Potential
from study.space.plugin_configs import realized
from study.tasks.scalar import POOLINGS, predict_scalar
from study.training.checkpoint import load_tensors

if TYPE_CHECKING:
    from ase import Atoms

    from study.tasks.config import Scalar

FloatType = Literal["float32", "float64"]


class TrainedModel:
    """What training's own evaluation would predict from: same neighbours, units, references.

    Args:
        trained: which model.
        device: torch device.
        precision: float32 as in training, or float64 for tiny differences.
    """

    def __init__(
        self, trained: TrainedTrial, device: str = "cpu", precision: FloatType = "float32"
    ) -> None:
        self.trained, self.device = trained, device
        self.dtype = getattr(torch, precision)
        self.model = _loaded(trained).eval()
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            # What is float64 already are reference energies, which float32 cannot hold.
            dtype = self.dtype if tensor.dtype == torch.float32 else tensor.dtype
            tensor.data = tensor.data.to(device, dtype)

    def batches(self, structures: Sequence[Atoms]) -> Iterator[Batch]:
        """The structures in order, in batches as large as those of training.

        Raises:
            UserError: if one is not periodic, though the training frames were, or has an element
                that the model does not know.
        """
        for number, atoms in enumerate(structures):
            self._require_known(atoms, f"structure {number} (from 0)")
        size = self.trained.work.trial.finetune.batch_size
        for first in range(0, len(structures), size):
            yield self.graph(structures[first : first + size])

    def graph(self, structures: Sequence[Atoms]) -> Batch:
        """The structures as the model saw its training frames."""
        cutoff = self.trained.work.trial.model.cutoff
        graphs = GraphSet.build(unlabelled(structures), cutoff, self.dtype, self.device)
        batch = graphs.gather(torch.arange(len(graphs)))
        self.mark(batch)
        return batch

    def mark(self, graph: Data) -> None:
        """No atom is masked, or the model was finetuned without that mark."""
        if self.trained.work.trial.finetune.task.mask_embedding == "zeros":  # type: ignore[union-attr]
            graph.masked = torch.zeros_like(graph.z)

    def _require_known(self, atoms: Atoms, where: str) -> None:
        alone = self.trained.molecular and not atoms.pbc.any()
        if not alone and (not atoms.pbc.all() or abs(atoms.cell.volume) == 0):
            raise UserError(
                f"{where}: must have a periodic cell, as the frames that the model was trained on, "
                f"but pbc is {atoms.pbc.tolist()}; set one with `atoms.cell` and `atoms.pbc`"
            )
        strange = set(atoms.numbers.tolist()) - self.trained.elements
        if self.trained.elements and strange:
            symbols = sorted({str(atom.symbol) for atom in atoms if atom.number in strange})
            raise UserError(
                f"{where}: has {', '.join(symbols)}, which no frame had that the model was "
                "trained on; train one on data with these elements"
            )


class TrainedPotential(TrainedModel):
    """Predicts energies and forces.

    Raises:
        UserError: if the model learned something else.
    """

    def __init__(
        self, trained: TrainedTrial, device: str = "cpu", precision: FloatType = "float32"
    ) -> None:
        require_potential(trained)
        super().__init__(trained, device, precision)

    def predict(self, structures: Sequence[Atoms]) -> Iterator[tuple[float, NDArray[np.float64]]]:
        """Energy (eV, reference energies included) and forces (N, 3) (eV/Å) of each structure.

        Raises:
            UserError: see `batches`.
        """
        for batch in self.batches(structures):
            found = self.model(batch)
            energies = found.energy.detach().double() + self.model.reference_energy(batch)
            forces = found.forces.detach().double().split(batch.ptr.diff().tolist())
            for energy, vectors in zip(energies.tolist(), forces, strict=True):
                yield energy, vectors.cpu().numpy()


class TrainedScalar(TrainedModel):
    """Predicts the number of each structure that a trial with `task: {name: scalar}` learned."""

    @property
    def settings(self) -> Scalar:
        """Of the task."""
        task: Scalar = self.trained.work.trial.finetune.task  # type: ignore[assignment]
        return task

    @property
    def unit(self) -> str:
        """Of the number."""
        target = self.settings.target
        return "eV" if target == "energy" else PROPERTIES[target].unit

    def predict(self, structures: Sequence[Atoms]) -> Iterator[float]:
        """The number of each structure, in `unit`.

        Raises:
            UserError: see `batches`.
        """
        pool = POOLINGS[self.settings.extensive]
        for batch in self.batches(structures):
            yield from predict_scalar(pool, self.model, batch).detach().tolist()


def require_potential(trained: TrainedTrial) -> None:
    """Refuse a model of something else than energies with forces."""
    task = trained.work.trial.finetune.task
    if task.name != "energy_forces":
        raise UserError(
            f"{trained.weights.parent}: learned {task.label}, and predicts no energies with "
            "forces; name a trial that learned these, or predict with `python -m study.predict`"
        )


def _loaded(trained: TrainedTrial) -> Potential:
    trial = trained.work.trial
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
    """ASE structures as frames whose labels are zero; molecules get a cell of vacuum."""
    sizes = [len(atoms) for atoms in structures]
    return Frames(
        numbers=np.concatenate([atoms.numbers for atoms in structures]),
        positions=np.concatenate([atoms.positions for atoms in structures]),
        forces=np.zeros((sum(sizes), 3)),
        offsets=np.cumsum([0, *sizes]),
        cells=np.stack([cell_of(atoms) for atoms in structures]),
        energies=np.zeros(len(sizes)),
        groups=np.zeros(len(sizes), np.int64),
    )


def cell_of(atoms: Atoms) -> NDArray[np.float64]:
    """(3, 3) Å, its own cell, or one of vacuum around a molecule, as in its training frames."""
    cell: NDArray[np.float64] = atoms.cell.array if atoms.pbc.all() else box(atoms.positions)
    return cell
