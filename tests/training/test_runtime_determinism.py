"""Equal bits in fresh processes and after cuts; `python -m tests.determinism` tries all models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from study.models.build import MODELS
from study.training.runtime import configure_process
from tests import determinism
from tests.determinism import Way, differences


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_models_end_in_the_same_bits(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    monkeypatch.setenv("PYTHONPATH", str(Path(determinism.__file__).parents[1]))
    apart = differences(tmp_path, [*MODELS], Way(1, device), 2)
    assert apart == dict.fromkeys(
        (f"{name}, {stage}" for name in MODELS for stage in ("pretrain", "finetune")), 0.0
    )


def test_another_order_of_steps_would_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(determinism, "_in_a_fresh_process", one_that_restarts_its_optimizer)
    monkeypatch.setattr(determinism, "configure_process", lambda *_, **__: None)
    apart = differences(tmp_path, ["egnn"], Way(1), 2)
    assert apart["egnn, finetune"] > 1e-6


def one_that_restarts_its_optimizer(*arguments: object) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "load_state_dict", lambda *_: None)
        return determinism.all_models(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "asked", "ordered"),
    [("cpu", True, False), ("cuda", False, False), ("cuda", True, True)],
)
def test_only_gpus_for_which_it_is_asked_add_up_in_order(
    device: str, monkeypatch: pytest.MonkeyPatch, *, asked: bool, ordered: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    try:
        configure_process(torch.get_num_threads(), device, deterministic=asked)
        assert torch.are_deterministic_algorithms_enabled() == ordered
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (":4096:8" if ordered else "")
    finally:
        torch.use_deterministic_algorithms(mode=False)
