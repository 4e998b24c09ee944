"""Trained models, found again where a study left them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Batch, Data

from study import own_settings
from study.checkpoint import load_tensors
from study.datasets.conformers import box
from study.durable import DamagedFileError, read_hashed, write_bytes, write_json
from study.errors import UserError
from study.frames import Frames, read_header
from study.graph import GraphSet
from study.identity import code_version
from study.journal import Journal
from study.models import build_model
from study.models.potential import Potential
from study.own_settings import realized
from study.properties import PROPERTIES
from study.study_folder import StudyFolder
from study.tasks.scalar import POOLS, predicted
from study.work import Work, load_outcome

if TYPE_CHECKING:
    from ase import Atoms

    from study.trial import Scalar

PORTABLE = "model.json"
"""In a folder with one model: what it is."""

FloatType = Literal["float32", "float64"]


@dataclass(frozen=True)
class Trained:
    """A finished trial with its final weights.

    Args:
        work: the trial.
        weights: their file.
        root: folder of all work, or of this trial alone; see `save_portable`.
    """

    work: Work
    weights: Path
    root: Path

    @property
    def label(self) -> str:
        """The model in a few words."""
        return f"{self.work.label}, {self.weights.parent.name}"

    @property
    def outdated(self) -> bool:
        """It was trained by other code or another torch than those that would run it now."""
        return self.work.code != code_version()

    @cached_property
    def elements(self) -> set[int]:
        """Atomic numbers in the data it was trained on; empty if they are not there any more."""
        portable = _read_portable(self.root)
        if portable:
            return set(portable["elements"])
        if self._data is None:
            return set()
        numbers = np.load(self._data / "numbers.npy", allow_pickle=False)
        return set(np.unique(numbers).tolist())

    @cached_property
    def molecular(self) -> bool:
        """All data it was trained on are molecules in vacuum, as far as they are still there."""
        portable = _read_portable(self.root)
        if portable:
            return bool(portable.get("molecular"))
        sizes = read_header(self._data)["origin"].get("sizes", {}) if self._data else {}
        return sizes.get("others") is not None

    @cached_property
    def _data(self) -> Path | None:
        """Folder of the data it was trained on; none if they are not there any more."""
        headers = (self.root / "data").glob("*/frames.json")
        known = {read_header(header.parent)["content_hash"]: header.parent for header in headers}
        return known.get(self.work.data_hash)


class TrainedModel:
    """What training's own evaluation would predict from: same neighbours, units, references.

    Args:
        trained: which model.
        device: torch device.
        precision: float32 as in training, or float64 for tiny differences.
    """

    def __init__(
        self, trained: Trained, device: str = "cpu", precision: FloatType = "float32"
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
        self, trained: Trained, device: str = "cpu", precision: FloatType = "float32"
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
        pool = POOLS[self.settings.extensive]
        for batch in self.batches(structures):
            yield from predicted(pool, self.model, batch).detach().tolist()


def require_potential(trained: Trained) -> None:
    """Refuse a model of something else than energies with forces."""
    task = trained.work.trial.finetune.task
    if task.name != "energy_forces":
        raise UserError(
            f"{trained.weights.parent}: learned {task.label}, and predicts no energies with "
            "forces; name a trial that learned these, or predict with `python -m study.predict`"
        )


def find_trained(place: Path) -> Trained:
    """The trained model at a path.

    Args:
        place: a study's folder, for its best trial by validation; a trial's folder in `work`; or
            a file of weights there.

    Raises:
        UserError: if there is none.
    """
    place = place.expanduser().resolve()
    if portable := _read_portable(place):
        return Trained(Work.from_json(portable["work"]), place / portable["weights"], place)
    if (place / "journal.jsonl").exists():
        return _best_of(place)
    folder = place.parent if place.suffix == ".safetensors" else place
    if folder.name.startswith("pretrain-"):
        raise UserError(
            f"{folder}: is a pretraining, which predicts no energies; name a trial-… folder"
        )
    root = folder.parent.parent
    for journal in sorted((root / "studies").glob("*/journal.jsonl")):
        for work in _works(journal):
            if work.folder(root) == folder:
                return _with_weights(work, root)
    raise UserError(
        f"{place}: no trained model of a study; name a study's folder, such as runs/studies/NAME, "
        "or a trial's folder, runs/work/trial-…, beside the studies that it belongs to"
    )


def save_portable(trained: Trained, folder: Path) -> None:
    """Write all that `find_trained` needs of a model into a folder of its own."""
    settings = trained.work.to_json()
    content = {
        "work": settings,
        "weights": trained.weights.name,
        "elements": sorted(trained.elements),
        "molecular": trained.molecular,
    }
    write_json(folder / PORTABLE, content)
    write_bytes(folder / trained.weights.name, read_hashed(trained.weights))
    own_settings.keep(settings, folder, kept_in=trained.root)


def _read_portable(folder: Path) -> dict[str, Any]:
    """What a folder with one model says of it; empty if it is none."""
    path = folder / PORTABLE
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _best_of(study: Path) -> Trained:
    """The completed trial with the lowest validation error; test errors decide nothing.

    A trial that was stopped early stays out, though an audit may have finished it.
    """
    root = study.parent.parent
    metric = StudyFolder(root, study.name).recorded_space().settings.metric
    errors: dict[float, Work] = {}
    for entry in Journal(study / "journal.jsonl", "").entries().values():
        work = entry.planned.work
        stopped = entry.result is not None and entry.result.status == "stopped"
        outcome = None if stopped else load_outcome(work.folder(root))
        if outcome is not None and outcome.result.status == "completed":
            chosen = outcome.history[int(outcome.result.metrics["best_epoch"]) - 1]
            errors.setdefault(chosen.metrics[metric], work)
    if not errors:
        raise UserError(f"{study}: no trial has completed yet; run the study to its end first")
    return _with_weights(errors[min(errors)], root)


def _works(journal: Path) -> list[Work]:
    entries = Journal(journal, "").entries().values()
    return [entry.planned.work for entry in entries]


def _with_weights(work: Work, root: Path) -> Trained:
    outcome = load_outcome(work.folder(root))
    if outcome is None or outcome.weights is None:
        raise UserError(
            f"{work.folder(root)}: this trial has no final weights: it is not finished, was "
            "stopped, or diverged; name another"
        )
    return Trained(work, outcome.weights, root)


def _loaded(trained: Trained) -> Potential:
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
