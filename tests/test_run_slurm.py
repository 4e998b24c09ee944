"""The README's job for SLURM, with programs that only write down what they are told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.readme import example


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """`srun`, which runs what it is given; a study that ends with $CODE; and `scontrol`."""
    for name, body in {
        "srun": 'exec "$@"',
        "python": 'echo "$@" >> told; exit "$CODE"',
        "scontrol": 'echo scontrol "$@" >> told',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(example("job.sh"))
    return tmp_path


@pytest.mark.parametrize("code", [0, 1, 2, 75, 130])
def test_a_job_queues_again_exactly_if_its_study_is_not_whole(programs: Path, code: int) -> None:
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "CODE": str(code)}
    done = subprocess.run(
        ["bash", "job.sh", "--space", "two words.yaml"],
        cwd=programs,
        env=environment | {"SLURM_JOB_ID": "17"},
        check=False,
    )
    assert done.returncode == code
    study, *rest = (programs / "told").read_text().splitlines()
    assert study == "-m study.run --profile paper --out /shared/runs --space two words.yaml"
    assert rest == (["scontrol requeue 17"] if code == 75 else [])
