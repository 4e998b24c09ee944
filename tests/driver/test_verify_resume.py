"""The user's own proof that resuming is exact: it holds, and it can fail."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from study.driver import verify_resume
from study.driver.verify_resume import Verdict, verify
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.planning.plan import Plan
from study.space.search_space import load_space
from study.space.settings import Resources
from study.training import loop

SPACE = """\
question: Does resuming change anything?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 4, frames: 6}
  model: {name: egnn, hidden: 8, layers: 2}
  pretrain:
    task: {name: masking, masking_ratio: 0.5}
    epochs: 50
    batch_size: 6
  finetune:
    task: {name: energy_forces}
    epochs: 300
    batch_size: 3
profiles: {quick: }
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Its processes are functions here, and die by an exception."""
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.setattr(verify_resume, "_run", run_here)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 0.0)
    space = load_space(str(tmp_path / "space.yaml"), "quick")
    return Plan(space, tmp_path / "runs", "name", "")


def run_here(
    work: Job,
    root: Path,
    frames: Path,
    device: str,
    resources: Resources,
    die_at: int | None = None,
) -> bool:
    del resources
    left = die_at or -1

    def dies() -> bool:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return False

    with contextlib.suppress(KeyboardInterrupt):
        for piece in filter(None, (work.pretraining, work)):
            list(run_job(piece, root, frames, device, dies))
        return False
    return True


def test_a_trial_that_is_killed_ends_bit_for_bit_the_same(plan: Plan, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    verdict = verify(plan, "cpu")
    assert verdict.holds
    assert verdict.kills == verify_resume.KILLS
    assert list(verdict.differences) == ["pretrain", "finetune"]
    assert "bit for bit the same" in str(verdict)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mistake_in_resuming_is_found(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", lambda *_: None)
    verdict = verify(plan, "cpu")
    assert not verdict.holds
    assert max(verdict.differences.values()) > 1e-6
    assert "not exact" in str(verdict)


def test_a_verdict_names_the_stage_that_differs() -> None:
    assert "pretrain 0.0e+00, finetune 2.5e-03" in str(
        Verdict(3, {"pretrain": 0.0, "finetune": 2.5e-3})
    )
