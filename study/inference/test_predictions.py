"""What the finished trials of a study predict of their test frames, beside their weights.

`python -m study.predict STUDY` comes here; `python -m analysis.export STUDY --predictions` makes a
table of it.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.errors import UserError
from study.core.paths import real_path

if TYPE_CHECKING:
    import numpy as np

    from study.pipeline.job import Job
    from study.pipeline.setup import _Setup

FILE = "predictions.npz"

CLOSE = 1e-3
"""Relative difference of a test error that another machine may make."""

OTHER = (
    "code or torch have changed since: check out the commit that MLflow's tag `study.git` names, "
    "with the packages of `study.packages`, and predict again"
)


def predict(work: Job, root: Path, frames: Path, device: str = "cpu") -> Path:
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
    from study.core.atomic_io import write_with

    path = work.folder(root) / FILE
    if not path.exists():
        write_with(path, partial(_write, _predicted(work, root, frames, device)))
    return path


def _write(arrays: dict[str, np.ndarray[Any, Any]], path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _predicted(work: Job, root: Path, frames: Path, device: str) -> dict[str, np.ndarray[Any, Any]]:
    import torch

    if work.trial.finetune.task.name != "energy_forces":
        raise UserError(_manual_instructions(work, root, frames))
    setup = _restored(work, root, frames, device)
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
    _require_tested(work, root, arrays)
    return arrays | {"frames": test.cpu().numpy()}


def _manual_instructions(work: Job, root: Path, frames: Path) -> str:
    """How test frames are predicted of what has no place in the table of predictions."""
    trial, place = work.trial, work.folder(root)
    there, data = shlex.quote(str(place)), shlex.quote(str(frames))
    return (
        f"{place}: learned {trial.finetune.task.label}, but without a file only energies and "
        f"forces are predicted; write its test frames with `python -m study.data split {data} "
        f"SPLIT --by {trial.split.by} --test {trial.split.test} --validation "
        f"{trial.split.validation} --seed {trial.seed}`, then run `python -m study.predict {there} "
        "SPLIT/test.extxyz`"
    )


def _restored(work: Job, root: Path, frames: Path, device: str) -> _Setup:
    """The trial with its final weights."""
    from study.pipeline.outcome import require_weights
    from study.pipeline.setup import set_up
    from study.training.checkpoint import load_tensors

    # What was pretrained is in the final weights, and its folder need not be there any more.
    alone = replace(work, trial=work.trial.model_copy(update={"pretrain": None}))
    setup = set_up(alone, root, frames, device)
    try:
        setup.model.load_state_dict(load_tensors(require_weights(work, root)))
    except RuntimeError:
        raise UserError(f"{work.folder(root)}: its weights do not fit the model; {OTHER}") from None
    setup.model.eval()
    return setup


def _require_tested(work: Job, root: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """Refuse predictions whose error is not that which was found when the trial was tested."""
    from study.pipeline.outcome import load_outcome

    outcome = load_outcome(work.folder(root))
    tested = outcome.result.metrics.get("test_force_rmse") if outcome else None
    off = arrays["predicted_forces"].astype(float) - arrays["forces"]
    error = float((off**2).mean() ** 0.5)
    if tested is not None and not abs(error - tested) <= CLOSE * tested:
        raise UserError(
            f"{work.folder(root)}: the force error on its test frames is {1000 * error:.4g} meV/Å, "
            f"but {1000 * tested:.4g} when it was tested; {OTHER}"
        )


def predict_study(place: Path, device: str = "cpu") -> list[Path]:
    """Predict for all completed trials of a study's folder.

    Raises:
        UserError: if there is no study or nothing completed, or if the code has changed so that
            its models are no longer those that were tested.
    """
    from study.core.hashing import code_version
    from study.planning.study_dir import StudyFolder
    from study.scheduling.journal import Journal

    folder = real_path(place)
    study = StudyFolder(folder.parent.parent, folder.name)
    if not study.journal.exists():
        raise UserError(f"{place}: no study here; name a study's folder, such as runs/studies/NAME")
    entries = Journal(study.journal, "").entries().values()
    ended = [entry for entry in entries if entry.result and entry.result.status == "completed"]
    if not ended:
        raise UserError(f"{place}: no trial has completed yet; run the study to its end first")
    if any(entry.planned.work.code != code_version() for entry in ended):
        sys.stderr.write(
            "warning: code or torch have changed since this study ran; its models are used only "
            "if their test errors come out as recorded\n"
        )
    return [
        predict(
            entry.planned.work, study.root, study.frames_of(entry.planned.work.data_hash), device
        )
        for entry in ended
    ]
