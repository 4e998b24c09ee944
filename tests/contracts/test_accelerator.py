"""Both stages on an accelerator that is pretended: everything is there, and steps stay cheap."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from study.core.seeding import seeded
from tests.accelerator import TABLE, cases, measured, train
from tests.benchmarks.water import water_box
from tests.determinism import CLOCKS, Way
from tests.determinism import train as train_both_stages
from tests.pretended_device import DEVICE, NAME, Pretended

CPU = torch.device("cpu")


def without_clocks(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(CLOCKS)}


@pytest.mark.parametrize(("name", "task"), list(cases()), ids=str)
def test_steps_there_equal_those_of_the_cpu_and_cost_no_more_than_before(
    name: str, task: str
) -> None:
    counted, metrics = measured(name, task)
    expected = train(name, task, CPU, lambda: False)
    assert without_clocks(metrics) == pytest.approx(without_clocks(expected), rel=1e-3)
    # Operations depend on the version of torch; a step may become cheaper without a word.
    allowed = json.loads(TABLE.read_text())[f"{name}, {task}"]
    assert all(counted[kind] <= allowed[kind] for kind in allowed), (counted, allowed)


def test_work_there_is_checkpointed_resumed_and_tested(tmp_path: Path) -> None:
    water_box(8, 6).save(tmp_path / "frames")
    expected = train_both_stages("schnet", Way(epochs=1), tmp_path / "frames", tmp_path / "cpu")
    with Pretended().running():
        found = train_both_stages(
            "schnet",
            Way(epochs=1, device=NAME),
            tmp_path / "frames",
            tmp_path / "there",
            {"pretrain": {1}, "finetune": {2}},
        )
    for stage, (told, wanted) in enumerate(zip(found.values(), expected.values(), strict=True)):
        assert told["steps"] == wanted["steps"], stage
        for metrics, numbers in zip(told["metrics"], wanted["metrics"], strict=True):
            assert metrics == pytest.approx(numbers, rel=1e-3)


def test_what_would_fail_on_a_gpu_fails_there() -> None:
    with Pretended().running():
        there, here = torch.ones(3).to(DEVICE), torch.ones(3)
        with pytest.raises(RuntimeError, match="on the CPU"):
            there + here
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device=DEVICE, generator=seeded(0))
        assert (there + 1).cpu().tolist() == [2, 2, 2]
        assert torch.rand(3, device=DEVICE, generator=seeded(0, device=DEVICE)).device == DEVICE


def test_launches_copies_and_waits_are_counted() -> None:
    device = Pretended()
    with device.running():
        values = torch.arange(4.0).to(DEVICE)
        assert (device.launched.total(), device.copies.total(), device.waits.total()) == (0, 1, 0)
        doubled = values[1:].view(3, 1) * 2
        assert (device.launched.total(), device.copies.total(), device.waits.total()) == (1, 1, 0)
        assert len(doubled[doubled > 2]) == 2
        assert device.waits.total() == 1
        assert float(doubled.sum()) == 12
        assert doubled.tolist() == [[2], [4], [6]]
        assert (device.copies.total(), device.waits.total()) == (2, 3)
