"""Energy of CPUs and GPUs, by counters written by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.potential import Potential
from study.space.trial import Trial
from study.tasks.build import build_task
from study.tasks.task import Task
from study.training.config import Stage
from study.training.energy_meter import EnergyMeter
from study.training.loop import fit

TRAIN, VALIDATION = torch.tensor([0, 3, 6, 1]), torch.tensor([9, 10, 11])


CPU = torch.device("cpu")


def prepared(
    settings: Trial, graphs: GraphSet, kind: str, train: Tensor = TRAIN
) -> tuple[Potential, Task, Stage]:
    model = build_model(settings.model, seed=1).to(graphs.pos.dtype)
    stage = settings.pretrain if kind == "pretrain" else settings.finetune
    assert stage is not None
    return model, build_task(stage.task, model, graphs, train[: stage.frames]), stage


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[int, int], EnergyMeter]:
    """Files of a machine with one package; a call sets its counter and how long it worked."""
    package = tmp_path / "intel-rapl:0"
    for folder in (package, tmp_path / "intel-rapl:0:0"):
        folder.mkdir()
        (folder / "max_energy_range_uj").write_text("1000000000\n")
        (folder / "energy_uj").write_text("7\n")

    def at(microjoules: int, ticks: int) -> EnergyMeter:
        (package / "energy_uj").write_text(f"{microjoules}\n")
        (tmp_path / "stat").write_text(f"cpu  {ticks} 0 0 9{ticks} 5 0 0 0 0 0\ncpu0 1 1\n")
        return EnergyMeter(CPU, tmp_path, tmp_path / "stat")

    return at


def test_the_energy_of_the_processors_is_shared_by_time(
    machine: Callable[[int, int], EnergyMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = [0.0]
    monkeypatch.setattr(
        "study.training.energy_meter.time", SimpleNamespace(process_time=lambda: spent[0])
    )
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    meter = machine(999_000_000, 1000)
    spent[0] = 2.5
    machine(9_000_000, 2000)  # The counter went round; processors worked for ten seconds.
    assert meter.lap() == pytest.approx(10 * 0.25)
    assert meter.lap() == 0


def test_a_machine_that_tells_no_energy_leaves_it_unknown(
    tmp_path: Path, graphs: GraphSet, tiny: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EnergyMeter(CPU, tmp_path).lap() is None
    monkeypatch.setattr(
        "study.training.loop.EnergyMeter", lambda device: EnergyMeter(device, tmp_path)
    )
    model, task, stage = prepared(tiny(), graphs, "finetune")
    assert "energy_joule" not in next(fit(model, task, stage, TRAIN, VALIDATION, 0))


def test_the_energy_of_a_gpu_is_what_nvml_says(monkeypatch: pytest.MonkeyPatch) -> None:
    total = iter([5_000, 12_000])
    driver = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: {"GPU-abc": 1}[name],
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(total) * handle,
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(
        "torch.cuda.get_device_properties", lambda _device: SimpleNamespace(uuid="abc")
    )
    assert EnergyMeter(torch.device("cuda")).lap() == pytest.approx(7.0)
