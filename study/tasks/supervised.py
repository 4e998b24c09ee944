"""Base class of tasks that learn from labels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss
from torch_geometric.data import Batch

from study.core.errors import UserError
from study.graphs.graph_set import GraphSet
from study.models.potential import Potential, Prediction
from study.tasks.metrics import FrameValues, alike, joined, own_errors
from study.tasks.task import Task, Term

if TYPE_CHECKING:
    from study.tasks.config import LabelledConfig

FULL_LOSSES: dict[str, Callable[..., Tensor]] = {
    "l1": l1_loss,
    "l2": mse_loss,
    "huber": huber_loss,
}

Statistics = TypeVar("Statistics")

Predicted = TypeVar("Predicted", Prediction, Tensor)

LABELS_AT_ONCE = 1_000_000
"""Rows of labels that are looked at together."""
WHERE_KNOWN = " where known"
"""Ends the name of a loss that leaves out labels that are NaN."""


def mean_where_known(loss: str, predicted: Tensor, label: Tensor) -> Tensor:
    """() mean loss over the labels of a batch that are there; 0 if none is.

    An absent label, which is NaN, adds nothing, and the others count as if they were alone.
    """
    known = ~label.isnan()
    each = FULL_LOSSES[loss](predicted, torch.where(known, label, 0.0), reduction="none")
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def count_labels(loss: str, names: Sequence[str], batch: Batch) -> Tensor:
    """Count the labels of each name, (names,), that a loss of `LOSSES` is the mean of."""
    labels = [batch[name] for name in names if name in batch]
    if loss.endswith(WHERE_KNOWN):
        known = torch.stack([(~each.isnan()).sum() for each in labels])
        return known.clamp(min=1).to(labels[0].dtype)
    return labels[0].new_tensor([each.numel() for each in labels])


LOSSES = FULL_LOSSES | {
    f"{name}{WHERE_KNOWN}": partial(mean_where_known, name) for name in FULL_LOSSES
}
"""Means over the labels of a batch: over all, or over those that are there."""


LABELLED = (
    "z", "pos", "cell", "batch", "ptr", "energy", "force", "edge_index", "shift", "masked",
)  # fmt: skip
"""Tensors of a batch to predict labels from, without what an auxiliary task adds, such as forces
that it gives to the network."""


def known_values(values: Tensor, labels: Tensor) -> Tensor:
    """The values whose labels are not NaN."""
    return values[~labels.isnan()]


def some_absent(labels: Tensor) -> bool:
    """Whether a label is NaN; they are looked at some after the other, which spares memory."""
    return any(bool(some.isnan().any()) for some in labels.split(LABELS_AT_ONCE))


def known_stresses(graphs: GraphSet, frames: Tensor) -> Tensor:
    """Components of the stresses that the given frames have: (9 S,) eV/Å³, float64."""
    if graphs.stress is None:
        return torch.empty(0, dtype=torch.float64)
    values = graphs.stresses(frames).double()
    return known_values(values, values)


def stress_errors(off: Tensor) -> dict[str, float]:
    """Errors of stress components, eV/Å³; none where no frame has a stress."""
    return {"stress_rmse": rms(off), "stress_mae": float(off.abs().mean())} if len(off) else {}


class LabelledTask(Task):
    """Learns the labels of frames, with an optional auxiliary pretext task.

    The auxiliary task shares all weights. With denoising this is Noisy Nodes (arXiv:2106.07971),
    except that labels are predicted from clean structures, because energies and forces change with
    the noise; `labels_from: noised` predicts them from the noised ones in training, as there.
    """

    def __init__(self, settings: LabelledConfig, graphs: GraphSet) -> None:
        self.graphs, self.auxiliary_settings = graphs, settings.auxiliary
        self.embeds_mask = settings.mask_embedding == "zeros"
        self.from_noised = settings.labels_from == "noised"
        self.auxiliary = settings.auxiliary.task.build(graphs) if settings.auxiliary else None
        self.metrics = {each.name: each.build() for each in settings.metrics}
        self.values = graphs.energy
        """(frames,) labels of whole frames."""

    def gather(self, frames: Tensor) -> Batch:
        """Collate the given frames (G,), with the mask embedding of unmasked atoms if set."""
        return self._unmasked(self.graphs.gather(frames))

    def _unmasked(self, batch: Batch) -> Batch:
        if self.embeds_mask:
            batch.masked = torch.zeros_like(batch.z)
        return batch

    def training_batch(
        self, frames: Tensor, generator: torch.Generator, step: int
    ) -> tuple[Batch, list[Term]]:
        """Frames to predict labels from in a training step, and terms of the auxiliary task.

        Both are the same noised copies if labels are predicted from these.
        """
        if not self.from_noised:
            batch = self.gather(frames)
            return batch, list(self.auxiliary_terms(frames, generator, step))
        assert self.auxiliary is not None
        assert self.auxiliary_settings is not None
        (noised,) = self.auxiliary.terms(frames, generator, step)
        self._unmasked(noised.batch)
        weight = self.auxiliary_settings.weight * noised.weight
        labelled = Batch(**{name: noised.batch[name] for name in LABELLED if name in noised.batch})
        return labelled, [replace(noised, weight=weight)]

    def evaluate(
        self, model: Potential, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """Errors on validation frames, by name with the prefix `val_`."""
        del generator
        return {f"val_{name}": value for name, value in self.errors(model, batches).items()}

    def test_errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """On the test frames: of the model, and of the trivial predictor."""
        errors, trivial = self.errors(model, batches), self.trivial_errors(model, batches)
        found = {f"test_{name}": value for name, value in errors.items()}
        return found | {f"trivial_{name}": value for name, value in trivial.items()}

    def errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """Errors by name, in the units of the labels."""
        raise NotImplementedError

    def trivial_errors(self, model: Potential, batches: list[Tensor]) -> dict[str, float]:
        """Errors by name of the model-free baseline: the training mean, or a sum over elements."""
        raise NotImplementedError

    def with_own_errors(
        self,
        model: Potential,
        batches: list[Tensor],
        predict: Callable[[Batch], Predicted],
        errors: Callable[[Callable[[Batch], Predicted]], dict[str, float]],
        *,
        strict: bool = True,
    ) -> dict[str, float]:
        """Errors of what is predicted, and those of the user's own of the same predictions.

        Args:
            model: whose reference energies are added to predictions.
            batches: of frames, as `errors` has them predicted.
            predict: energies, forces and stresses of a batch, or a number of each frame.
            errors: of what the function that it is given predicts.
            strict: whether own errors must be finite.
        """
        if not self.metrics:
            return errors(predict)
        predictions: list[FrameValues] = []
        labels: list[FrameValues] = []

        def watched(batch: Batch) -> Predicted:
            predicted = predict(batch)
            labels.append(self._labels(batch, batches[len(labels)]))
            predictions.append(_predictions(predicted, batch, model))
            return predicted

        found = errors(watched)
        pair = alike(joined(predictions), joined(labels))
        try:
            return found | own_errors(self.metrics, *pair)
        except UserError:
            if strict:
                raise
            return found | dict.fromkeys(self.metrics, math.nan)

    def _labels(self, batch: Batch, frames: Tensor) -> FrameValues:
        known = None if self.graphs.stress is None else self.graphs.stresses(frames)
        return _values(batch, self.values[frames.to(self.graphs.device)], batch.force, known)

    def auxiliary_terms(
        self, frames: Tensor, generator: torch.Generator, step: int
    ) -> Iterator[Term]:
        """Weighted terms of the auxiliary task; all their atoms get the mask embedding."""
        if self.auxiliary is None or self.auxiliary_settings is None:
            return
        for term in self.auxiliary.terms(frames, generator, step):
            if "masked" not in term.batch:
                term.batch.masked = torch.ones_like(term.batch.z)
            yield replace(term, weight=self.auxiliary_settings.weight * term.weight)


def _predictions(predicted: Prediction | Tensor, batch: Batch, model: Potential) -> FrameValues:
    if isinstance(predicted, Tensor):
        return _values(batch, predicted, None, None)
    energies = predicted.energy.detach().double() + model.reference_energy(batch)
    return _values(batch, energies, predicted.forces, predicted.stress)


def _values(
    batch: Batch, energies: Tensor, forces: Tensor | None, stress: Tensor | None
) -> FrameValues:
    def known(values: Tensor | None) -> Any:
        return None if values is None else values.detach().double().cpu().numpy()

    return FrameValues(
        energies=known(energies),
        forces=known(forces),
        stress=known(stress),
        species=batch.z.cpu().numpy(),
        frame=batch.batch.cpu().numpy(),
    )


def fitted_once(
    kind: type[Statistics],
    fit: Callable[[], Statistics],
    graphs: GraphSet,
    frames: Tensor,
    *of: object,
) -> Statistics:
    """Statistics of labels; those of a large set are kept beside it for all processes.

    Args:
        kind: class of the statistics, whose fields are numbers and tuples of numbers.
        fit: computes them.
        graphs: all frames.
        frames: (M,) training frames.
        of: JSON values of all else that they depend on.
    """
    if graphs.store is None:
        return fit()
    trained_on = hashlib.sha256(frames.cpu().numpy().tobytes()).hexdigest()

    def make(folder: Path) -> None:
        for name, value in vars(fit()).items():
            np.save(folder / f"{name}.npy", np.array(value, dtype=np.float64))

    found = graphs.store.once("statistics", [kind.__name__, trained_on, *of], make)
    values = {name: array.tolist() for name, array in found.items()}
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def force_rms(graphs: GraphSet, frames: Tensor) -> float:
    """Root mean square of the force components that the given frames have, eV/Å; NaN if none."""
    if (pieces := graphs.pieces(frames)) > 1:
        frames = frames.sort().values  # Files are read in order.
    squares, count = torch.zeros((), dtype=torch.float64, device=graphs.device), 0
    for some in frames.tensor_split(pieces):
        rows, _ = graphs.atoms.rows(some)
        forces = graphs.force[rows].to(graphs.dtype).double()
        known = known_values(forces, forces)
        squares, count = squares + known.square().sum(), count + len(known)
    return float((squares / count).sqrt())


def rms(values: Tensor) -> float:
    """Root mean square of all values."""
    return float(values.square().mean().sqrt())
