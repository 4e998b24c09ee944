"""A study's best model in MLflow: logged to the run of its trial, and registered under a name."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.errors import UserError
from study.core.records import Tag, without_password
from study.core.trust import require_own_artifacts
from study.datasets.frames import Frames
from study.inference.predictor import require_potential
from study.inference.trained_model import TrainedTrial, save_portable
from study.planning.study_dir import StudyDir
from study.tracking.mlflow_db import is_local, path_of
from study.tracking.postgres import require_answer

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

PARENT = "mlflow.parentRunId"
NEEDS = (
    "torch",
    "torch-geometric",
    "numpy",
    "pydantic",
    "PyYAML",
    "safetensors",
    "filelock",
    "ase",
    "vesin",
)
"""Packages that a model needs besides its own copy of this one."""


def log_model(
    trained: TrainedTrial, study: StudyDir, name: str | None, uri: str | None = None
) -> str:
    """Log a model to the run of its trial, unless it has it, and name it in the study's run.

    Args:
        trained: of the study.
        study: whose runs MLflow has.
        name: also to register it as a new version of this model.
        uri: of MLflow, as the user names it; by default as the study records it.

    Returns:
        The URI by which `mlflow.pyfunc.load_model` finds it.

    Raises:
        UserError: if MLflow has no such run, or does not answer, or the model is none of energies
            and forces.
    """
    require_potential(trained)
    import mlflow

    uri = study.tracking_uri(uri)
    if is_local(uri) and not path_of(uri).exists():
        raise UserError(f"{uri}: no such database; MLflow's records of {study.path} are not here")
    require_answer(uri)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(uri)
    try:
        with warnings.catch_warnings():
            # MLflow would like type hints that it cannot itself express.
            warnings.simplefilter("ignore")
            return _log(trained, study, name)
    except mlflow.MlflowException as problem:
        reason = str(problem).splitlines()[0]
        reason = reason.replace(uri, without_password(uri))
        raise UserError(f"{without_password(uri)}: rejected the model ({reason})") from None


def _log(trained: TrainedTrial, study: StudyDir, name: str | None) -> str:
    import mlflow

    client, key = mlflow.MlflowClient(), trained.job.key
    experiment = client.get_experiment_by_name(study.name)
    same = f"tags.`{Tag.KEY}` = '{key}' AND tags.`{Tag.KIND}` = 'trial'"
    runs = client.search_runs([experiment.experiment_id], same) if experiment else []
    if not runs or experiment is None:
        raise UserError(f"{study.path}: MLflow has no run of {trained.label}; run the study again")
    places = (experiment.artifact_location, runs[0].info.artifact_uri)
    require_own_artifacts(mlflow.get_tracking_uri(), study.path, *places)
    # Or the model's files would go to MLflow's experiment 0, below the current folder.
    mlflow.set_experiment(experiment_id=experiment.experiment_id)
    uri = _logged(runs[0]) or _log_anew(trained, study, runs[0].info.run_id)
    client.set_tag(runs[0].data.tags[PARENT], Tag.MODEL, uri)
    if name:
        mlflow.register_model(uri, name)
    return uri


def _logged(run: Run) -> str:
    """URI of the model already logged to the run of a finished trial; empty if there is none."""
    import mlflow

    models = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id],
        filter_string=f"source_run_id = '{run.info.run_id}'",
        output_format="list",
    )
    ready = [model for model in models if model.status == "READY"]
    return str(ready[0].model_uri) if ready else ""


def _log_anew(trained: TrainedTrial, study: StudyDir, run_id: str) -> str:
    import mlflow.pyfunc
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as folder:
        portable = Path(folder) / "trained"
        save_portable(trained, portable)
        logged = Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.pyfunc,
            run_id=run_id,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={portable.name: str(portable)},
            code_paths=[str(Path(__file__).parents[1])],
            pip_requirements=[f"{each}=={version(each)}" for each in NEEDS],
            signature=signature(),
            input_example=_example(study.frames_of(trained.job.data_hash)),
        )
    return str(logged.model_uri)


def signature() -> ModelSignature:
    """Input and output columns; see `study.tracking.pyfunc_model`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    vectors = Array(Array(DataType.double))
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(Array(DataType.long), "numbers"),
                ColSpec(vectors, "positions"),
                ColSpec(vectors, "cell"),
            ]
        ),
        outputs=Schema([ColSpec(DataType.double, "energy"), ColSpec(vectors, "forces")]),
    )


def _example(folder: Path) -> pd.DataFrame:
    """The first frame of a data set."""
    import pandas as pd

    frames = Frames.load(folder)
    atoms = slice(*frames.offsets[:2])
    row: dict[str, Any] = {
        "numbers": frames.numbers[atoms].tolist(),
        "positions": frames.positions[atoms].tolist(),
        "cell": frames.lattices[0].tolist(),
    }
    return pd.DataFrame([row])
