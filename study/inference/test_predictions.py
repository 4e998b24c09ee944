"""Predictions of finished trials on their test frames, stored beside their weights.

`python -m study.predict STUDY` writes them, and `python -m analysis.export STUDY --predictions`
collects them in a table.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from study.core.atomic_io import write_with
from study.core.errors import UserError
from study.core.hashing import code_version
from study.core.paths import real_path
from study.pipeline.outcome import load_outcome, require_weights
from study.pipeline.setup import set_up
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.space.plugin_configs import MayRun, accept_code, realized
from study.training.checkpoint import load_tensors

if TYPE_CHECKING:
    from study.pipeline.job import Job
    from study.pipeline.setup import Setup

FILE = "predictions.npz"

TOLERANCE = 1e-3
"""Relative difference of a test error between machines that is accepted."""

CODE_CHANGED = (
    "code or torch have changed since: check out the commit that MLflow's tag `study.git` names, "
    "with the packages of `study.packages`, and predict again"
)


def predict(job: Job, root: Path, frames: Path, device: str = "cpu") -> Path:
    """Predict the test frames of a completed trial, unless its predictions exist.

    Args:
        job: the trial.
        root: folder of all jobs.
        frames: folder of its data set.
        device: torch device.

    Returns:
        A file of arrays: frames (F,) indices into the data set; sizes (F,) atoms; numbers (ΣN,);
        energies and predicted_energies (F,) eV; forces and predicted_forces (ΣN, 3) eV/Å.
    """
    path = job.folder(root) / FILE
    if not path.exists():
        write_with(path, partial(_write, _predict_arrays(job, root, frames, device)))
    return path


def _write(arrays: dict[str, np.ndarray[Any, Any]], path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _predict_arrays(
    job: Job, root: Path, frames: Path, device: str
) -> dict[str, np.ndarray[Any, Any]]:
    if not job.trial.finetune.task.trains_potential:
        raise UserError(_manual_instructions(job, root, frames))
    setup = _load_trained_setup(job, root, frames, device)
    test = setup.parts[2]
    collected: dict[str, list[torch.Tensor]] = {}
    for frame_indices in torch.split(test, setup.stage.batch_size):
        batch = setup.task.gather(frame_indices)  # type: ignore[attr-defined]  # finetuning has it
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
            collected.setdefault(name, []).append(values.cpu())
    arrays = {name: torch.cat(values).numpy() for name, values in collected.items()}
    _raise_if_error_differs(job, root, arrays)
    return arrays | {"frames": setup.numbers[test.cpu().numpy()]}


def _manual_instructions(job: Job, root: Path, frames: Path) -> str:
    """Explain how to predict the test frames of a task without a table of predictions."""
    trial, place = job.trial, job.folder(root)
    there, data = shlex.quote(str(place)), shlex.quote(str(frames))
    return (
        f"{place}: learned {trial.finetune.task.label}, but without a file only energies and "
        f"forces are predicted; write its test frames with `python -m study.data split {data} "
        f"SPLIT --by {trial.split.by} --test {trial.split.test} --validation "
        f"{trial.split.validation} --seed {trial.seed}`, then run `python -m study.predict {there} "
        "SPLIT/test.extxyz`"
    )


def _load_trained_setup(job: Job, root: Path, frames: Path, device: str) -> Setup:
    """Set up the trial and load its final weights."""
    # The final weights include the pretraining, whose folder may have been deleted.
    from_scratch = replace(job, trial=job.trial.model_copy(update={"pretrain": None}))
    trial = realized(from_scratch.trial, root)
    setup = set_up(from_scratch, trial, root, frames, device)
    try:
        setup.model.load_state_dict(load_tensors(require_weights(job, root)))
    except RuntimeError:
        raise UserError(
            f"{job.folder(root)}: its weights do not fit the model; {CODE_CHANGED}"
        ) from None
    setup.model.eval()
    return setup


def _raise_if_error_differs(job: Job, root: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """Raise `UserError` if the force error differs from the recorded test error."""
    outcome = load_outcome(job.folder(root))
    tested = outcome.result.metrics.get("test_force_rmse") if outcome else None
    deviation = arrays["predicted_forces"].astype(float) - arrays["forces"]
    error = float((deviation[~np.isnan(arrays["forces"])] ** 2).mean() ** 0.5)
    if tested is not None and not abs(error - tested) <= TOLERANCE * tested:
        raise UserError(
            f"{job.folder(root)}: the force error on its test frames is {1000 * error:.4g} meV/Å, "
            f"but {1000 * tested:.4g} when it was tested; {CODE_CHANGED}"
        )


def predict_study(
    place: Path, device: str = "cpu", may_run: MayRun = lambda *_: False
) -> list[Path]:
    """Predict the test frames of all completed trials of a study.

    Args:
        place: the study's folder.
        device: torch device.
        may_run: asked of code among the results that this user has not accepted before.

    Raises:
        UserError: if there is no study or nothing completed, or if the code has changed so that
            its models are no longer those that were tested.
    """
    folder = real_path(place)
    study = StudyDir(folder.parent.parent, folder.name)
    if not study.journal.exists():
        raise UserError(f"{place}: no study here; name a study's folder, such as runs/studies/NAME")
    entries = Journal(study.journal, "").entries().values()
    compared = [entry for entry in entries if not entry.planned.tuning]
    completed = [entry for entry in compared if entry.result and entry.result.status == "completed"]
    if not completed:
        raise UserError(f"{place}: no trial has completed yet; run the study to its end first")
    for entry in completed:
        accept_code(entry.planned.work.to_json(), study.root, may_run)
    if any(entry.planned.work.code != code_version() for entry in completed):
        sys.stderr.write(
            "warning: code or torch have changed since this study ran; its models are used only "
            "if their test errors come out as recorded\n"
        )
    return [
        predict(
            entry.planned.work, study.root, study.frames_of(entry.planned.work.data_hash), device
        )
        for entry in completed
    ]
