from __future__ import annotations

import pytest

from study.pipeline.job import Job
from study.space.trial import Trial


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def work() -> Job:
    stage = {"epochs": 3, "batch_size": 2}
    trial = {
        "dataset": {"name": "tip3p_water"},
        "model": {"name": "egnn"},
        "pretrain": {"task": {"name": "masking", "masking_ratio": 0.5}} | stage,
        "finetune": {"task": {"name": "energy_forces"}} | stage,
    }
    return Job("trial", Trial.model_validate(trial), "data-hash")
