"""Metrics of jobs: their units and meanings."""

from __future__ import annotations

from study.core.quantities.properties import PROPERTIES, TARGETS

METRICS = {
    "train_loss": ("1", "mean training loss of the epoch"),
    "val_loss": ("1", "validation loss; 1 is chance for masking"),
    "val_force_rmse": ("eV/Å", "validation force error, root mean square per component"),
    "val_force_mae": ("eV/Å", "validation force error, mean absolute per component"),
    "val_energy_rmse": ("eV/atom", "validation energy error, root mean square per atom"),
    "val_energy_mae": ("eV/atom", "validation energy error, mean absolute per atom"),
    "val_frame_energy_rmse": ("eV", "validation energy error, root mean square per frame"),
    "lr": ("1", "learning rate at the end of the epoch"),
    "grad_norm": ("1", "mean norm of the gradient over the epoch"),
    "seconds": ("s", "wall time of this stage's epochs so far"),
    "cpu_seconds": ("s", "processor time of this stage's epochs so far, all threads together"),
    "flops": ("1", "floating point operations of this stage's epochs so far, in matrix products"),
    "energy_joule": ("J", "energy that they took; of a GPU, of all that shared it"),
    "test_force_rmse": ("eV/Å", "test force error, root mean square per component"),
    "test_force_mae": ("eV/Å", "test force error, mean absolute per component"),
    "test_energy_rmse": ("eV/atom", "test energy error, root mean square per atom"),
    "test_energy_mae": ("eV/atom", "test energy error, mean absolute per atom"),
    "test_frame_energy_rmse": ("eV", "test energy error, root mean square per frame"),
    "trivial_force_rmse": ("eV/Å", "test force error of predicting zero force"),
    "trivial_energy_rmse": ("eV/atom", "test energy error of predicting the training mean"),
    "trivial_frame_energy_rmse": ("eV", "test energy error per frame of the training mean"),
    "rotation_error": ("1", "change of the forces under rotation, relative to the forces"),
    "energy_rotation_error": ("eV/atom", "change of the energy under rotation"),
    "net_force": ("eV/Å", "sum of the forces of a frame per atom"),
    "best_epoch": ("1", "epoch whose weights were kept"),
    "step_seconds": ("s", "wall time of a finetuning step, validation included"),
    "parameters": ("1", "numbers that the model has"),
    "peak_memory": ("GB", "largest memory of the trial, of the GPU if it used one"),
}
"""Metric → (unit, meaning)."""

PROPERTY_METRICS = {
    f"{part}_{name}_{kind}": (PROPERTIES[name].unit, f"{whose} of the {PROPERTIES[name].meaning}")
    for name in TARGETS
    for kind, error in (("rmse", "root mean square error"), ("mae", "mean absolute error"))
    for part, whose in (
        ("val", f"validation {error}"),
        ("test", f"test {error}"),
        ("trivial", f"test {error}, of predicting the training mean or a sum over elements,"),
    )
}

PROPERTY_METRICS |= {
    f"{part}_stress_{kind}": ("eV/Å³", f"{whose} stress error, {error} per component{of}")
    for kind, error in (("rmse", "root mean square"), ("mae", "mean absolute"))
    for part, whose, of in (
        ("val", "validation", ""),
        ("test", "test", ""),
        ("trivial", "test", ", of predicting zero"),
    )
}

PROPERTY_METRICS |= {
    "val_frame_energy_mae": ("eV", "validation energy error, mean absolute per frame"),
    "test_frame_energy_mae": ("eV", "test energy error, mean absolute per frame"),
    "trivial_frame_energy_mae": (
        "eV",
        "test energy error per frame of the training mean or a sum over elements",
    ),
    "trivial_energy_mae": (
        "eV/atom",
        "test energy error per atom of the training mean or a sum over elements",
    ),
}
"""Metric → (unit, meaning) of scalar targets and of stress; a study has those that it measures."""

METRICS |= PROPERTY_METRICS

PARTS = {"val": "validation", "test": "test", "trivial": "of the trivial predictor on test"}
"""Prefixes of the names of errors, by the frames that they are of."""


def unit_of(metric: str) -> str:
    """Unit of a metric; 1 of one of the user's own, which is shown as it comes."""
    return METRICS[metric][0] if metric in METRICS else "1"


def meaning_of(metric: str) -> str:
    """What a metric is, in words."""
    part, _, name = metric.partition("_")
    own = f"metric of your own, {name}, {PARTS.get(part, part)} frames"
    return METRICS[metric][1] if metric in METRICS else own
