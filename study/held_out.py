"""What the finished trials of a study predict of their test frames, beside their weights.

`python -m study.predict STUDY` comes here; `python -m analysis.export STUDY --predictions` makes a
table of it.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from study.work import Work

FILE = "predictions.npz"


def predict(work: Work, root: Path, frames: Path, device: str = "cpu") -> Path:
    """Predict the test frames of a completed trial, unless that was done before.

    Args:
        work: the trial.
        root: folder of all work.
        frames: folder of its data set.
        device: torch device.

    Returns:
        A file of arrays: frames (F,) places in the data set; sizes (F,) atoms; numbers (ΣN,);
        energies and predicted_energies (F,) eV; forces and predicted_forces (ΣN, 3) eV/Å.
    """
    from study.durable import write_with

    path = work.folder(root) / FILE
    if not path.exists():
        write_with(path, partial(_write, _predicted(work, root, frames, device)))
    return path


def _write(arrays: dict[str, np.ndarray[Any, Any]], path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _predicted(
    work: Work, root: Path, frames: Path, device: str
) -> dict[str, np.ndarray[Any, Any]]:
    import torch

    from study.checkpoint import load_tensors
    from study.pipeline import _set_up
    from study.work import require_weights

    setup = _set_up(work, root, frames, device)
    setup.model.load_state_dict(load_tensors(require_weights(work, root)))
    setup.model.eval()
    test = setup.parts[2]
    found: dict[str, list[torch.Tensor]] = {}
    for chosen in torch.split(test, setup.stage.batch_size):
        batch = setup.task.gather(chosen)  # type: ignore[attr-defined]  # finetuning has it
        predicted = setup.model(batch)
        total = predicted.energy.detach().double() + setup.model.reference_energy(batch)
        parts = {
            "sizes": batch.ptr.diff(),
            "numbers": batch.z,
            "energies": batch.energy,
            "predicted_energies": total,
            "forces": batch.force,
            "predicted_forces": predicted.forces.detach(),
        }
        for name, values in parts.items():
            found.setdefault(name, []).append(values.cpu())
    arrays = {name: torch.cat(values).numpy() for name, values in found.items()}
    return arrays | {"frames": test.cpu().numpy()}


def predict_study(study: Path) -> list[Path]:
    """Predict for all completed trials of a study's folder."""
    from study.datasets import folder_of
    from study.journal import Journal

    root = study.resolve().parent.parent
    try:
        metric = json.loads((study / "study.json").read_text())["space"]["metric"]
    except (OSError, ValueError, KeyError) as problem:
        raise UserError(f"{study}: no study here ({problem!r})") from None
    paths = []
    for entry in Journal(study / "journal.jsonl", metric).entries().values():
        if entry.result is not None and entry.result.status == "completed":
            work = entry.planned.work
            paths.append(predict(work, root, folder_of(work.trial.dataset, root)))
    return paths
