"""The comparison of weights in `tests.determinism`, and that it would find a difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import determinism
from tests.determinism import Way, differences
from tests.native import NATIVE


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_models_end_in_the_same_bits(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    monkeypatch.setenv("PYTHONPATH", str(Path(determinism.__file__).parents[1]))
    models = [*NATIVE]
    apart = differences(tmp_path, models, Way(1, device), 2)
    assert apart == dict.fromkeys(
        (f"{name}, {stage}" for name in models for stage in ("pretrain", "finetune")), 0.0
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
