from __future__ import annotations

import pytest

from study.pipeline.job import Job
from tests.tracking.recording import a_trial


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def work() -> Job:
    return a_trial()
