"""Whether a model has been trained on the very frames that it is to predict."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from study.datasets.frames import Frames
from study.datasets.splits import Splits
from study.inference.trained_model import TrainedTrial
from study.pipeline.outcome import load_outcome

DECIMALS = 3
"""Of positions and cells, Å, in which frames agree: files of other formats round."""


def overlap_warning(trained: TrainedTrial, frames: Frames) -> str:
    """Say how many frames the model was trained on, or chosen by; empty if it knows none of them.

    Nothing is said of a model whose training data are not beside it.
    """
    parts = _parts(trained)
    if parts is None:
        return ""
    known, train, validation = parts
    asked = list(_contents(frames, np.arange(len(frames))))
    learned = set(_contents(known, train))
    chosen = set(_contents(known, validation)) - learned
    trained_on, chosen_by = (sum(each in of for each in asked) for of in (learned, chosen))
    if not trained_on + chosen_by:
        return ""
    also = f", and {chosen_by} chose its best epoch" if chosen_by else ""
    return (
        f"warning: the model was trained on {trained_on} of these {len(asked)} structures{also}; "
        "its errors on them say little of its errors on others"
    )


def _parts(trained: TrainedTrial) -> tuple[Frames, NDArray[np.int64], NDArray[np.int64]] | None:
    """The training data, and which of them trained and validated; none if they are not here."""
    outcome = load_outcome(trained.job.folder(trained.root))
    if trained.data is None or outcome is None:
        return None
    splits = Splits.load(trained.root / "splits", str(outcome.result.facts.get("split_hash")))
    if splits is None:
        return None
    used = splits.train[: trained.job.trial.finetune.frames]
    return Frames.load(trained.data, known=True), used, splits.validation


def _contents(frames: Frames, chosen: NDArray[np.int64]) -> Iterator[bytes]:
    """A hash of species, positions and lattice of each of the chosen frames."""
    lattices = frames.lattices
    for index in chosen.tolist():
        atoms = slice(*frames.offsets[index : index + 2])
        content = hashlib.blake2b(frames.numbers[atoms].tobytes(), digest_size=16)
        for values in (frames.positions[atoms], lattices[index]):
            # Zero has one sign.
            content.update((np.round(values, DECIMALS) + 0.0).tobytes())
        yield content.digest()
