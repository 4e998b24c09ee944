"""Measurements of one GPU: parity with the CPU, repeatability, speed, memory, company."""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from study.core.components import build
from study.core.seeding import seeded
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.tasks.build import build_task
from study.tasks.task import Task
from study.training.gradients import Engine
from tests.benchmarks.water import water_box

SETTINGS = Path(__file__).with_name("settings.json")
"""Models at their default size and tasks, as JSON, because pydantic may be absent."""
FP32_PEAK = {"H200": 67e12, "H100": 67e12, "A100": 19.5e12, "L40S": 91.6e12}
"""Operations a second of float32 without tensor cores, of NVIDIA's data sheets."""
RPBE_FRAMES, RPBE_EPOCHS = 5865, {"masking": 100, "energy_forces": 300}
"""An arm of arXiv:2402.15921 on RPBE water: 81 % of 7241 frames, of 81 atoms on average."""
TOLERANCE = {"float64": 1e-9, "float32": 2e-3}
"""Largest difference of gradients from the CPU's, in units of their largest component."""


@dataclass(frozen=True)
class Size:
    """How much is done.

    Args:
        molecules: of a frame of water.
        batch: frames of a step.
        seconds: of each measurement, at least.
        packed: processes at once.
        small: models of two layers instead of their defaults, to rehearse.
    """

    molecules: int = 27
    batch: int = 16
    seconds: float = 1.5
    packed: tuple[int, ...] = (1, 2, 4, 8)
    small: bool = False


REHEARSAL = Size(molecules=8, batch=2, seconds=0.01, packed=(1, 2), small=True)
Parts = dict[str, dict[str, Any]]


class Settings(SimpleNamespace):
    """Settings read from JSON, which build what they name."""

    build = build


def load_settings(*, small: bool) -> Parts:
    """Models and tasks by name."""
    overrides = {"hidden": 16, "layers": 2} if small else {}

    def made(values: dict[str, Any]) -> Any:
        return Settings(**values | {key: overrides[key] for key in overrides if key in values})

    read: Parts = json.loads(SETTINGS.read_text())
    return {
        kind: {name: json.loads(json.dumps(each), object_hook=made) for name, each in parts.items()}
        for kind, parts in read.items()
    }


class Bench:
    """Steps of one model and task on one device.

    Args:
        model, task: settings.
        device: torch device.
        size: of the frames and batches.
        dtype: of positions and weights.
        compiled: gradients by compiled code.
    """

    def __init__(
        self,
        model: Any,
        task: Any,
        device: str,
        size: Size,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
    ) -> None:
        self.device, self.size = torch.device(device), size
        frames = water_box(size.molecules, 2 * size.batch)
        graphs = GraphSet.build(frames, model.cutoff, dtype=dtype, device=device)
        self.model = build_model(model, seed=0).to(self.device, dtype).train()
        self.task: Task = build_task(task, self.model, graphs, torch.arange(len(frames)))
        self.engine = Engine(self.model, compiled=compiled)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.number = 0

    def backward(self) -> None:
        """Compute the gradients of the next batch; two batches alternate."""
        frames = torch.arange(self.size.batch) + self.number % 2 * self.size.batch
        generator = seeded(0, "task", self.number, device=self.device)
        self.optimizer.zero_grad()
        self.engine.backward(self.task.terms(frames, generator, self.number))

    def step(self) -> None:
        """Do what the training loop does in a step."""
        self.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), math.inf)
        self.optimizer.step()
        self.number += 1

    def wait(self) -> None:
        """Wait until the device has done all that was launched."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds_per_step(self) -> float:
        """Wall time of a step, after three to warm up."""
        for _ in range(3):
            self.step()
        self.wait()
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < self.size.seconds or steps < 2:
            self.step()
            steps += 1
            if steps % 5 == 0:
                self.wait()
        self.wait()
        return (time.perf_counter() - began) / steps


def parity(model: Any, task: Any, device: str, size: Size) -> dict[str, float]:
    """Largest difference of a batch's gradients from those of the CPU, by precision.

    The CPU gets the batch as the device has made it: random numbers differ between devices.
    """
    found = {}
    for dtype in (torch.float64, torch.float32):
        there, here = (Bench(model, task, each, size, dtype) for each in (device, "cpu"))
        terms = there.task.terms(torch.arange(size.batch), seeded(0, device=there.device))
        there.engine.backward(terms)
        for term in terms:
            term.batch.apply(lambda value: value.cpu())
        here.engine.backward(terms)
        pairs = zip(there.model.parameters(), here.model.parameters(), strict=True)
        apart = [
            (ours.grad.cpu() - theirs.grad).abs().max() / theirs.grad.abs().max().clamp(min=1e-3)
            for ours, theirs in pairs
            if ours.grad is not None and theirs.grad is not None
        ]
        found[str(dtype).removeprefix("torch.")] = float(torch.stack(apart).max())
    return found


def repeats(model: Any, task: Any, device: str, size: Size) -> bool:
    """Whether two trainings of five steps end in the same bits, by deterministic kernels."""
    torch.use_deterministic_algorithms(mode=True)
    try:
        ends = []
        for _ in range(2):
            bench = Bench(model, task, device, size)
            for _ in range(5):
                bench.step()
            ends.append([each.detach().cpu() for each in bench.model.parameters()])
        return all(torch.equal(*pair) for pair in zip(*ends, strict=True))
    finally:
        torch.use_deterministic_algorithms(mode=False)


def speed(model: Any, task: Any, device: str, size: Size, *, compiled: bool) -> dict[str, float]:
    """Seconds and frames a second of a training step, TFLOP a second, and peak memory in MB."""
    eager = Bench(model, task, device, size)
    with FlopCounterMode(display=False) as counter:
        eager.backward()
    flops = counter.get_total_flops()
    del eager
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    bench = Bench(model, task, device, size, compiled=compiled)
    bench.step()
    first = time.perf_counter() - began
    seconds = bench.seconds_per_step()
    told = {"seconds": seconds, "frames_per_second": size.batch / seconds, "first_step": first}
    told["tflops"] = flops / seconds / 1e12
    if device == "cuda":
        told["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
        name = torch.cuda.get_device_name()
        peak = next((rate for known, rate in FP32_PEAK.items() if known in name), math.nan)
        told["of_fp32_peak"] = flops / seconds / peak
    return told


def packed(device: str, size: Size) -> Iterator[dict[str, float]]:
    """Frames a second of several processes together that train EGNN on energies and forces."""
    context = multiprocessing.get_context("spawn")
    for count in size.packed:
        with context.Pool(count) as pool:
            rates = pool.starmap(_rate, [(device, size)] * count, chunksize=1)
        yield {"processes": count, "frames_per_second": sum(rates)}


def _rate(device: str, size: Size) -> float:
    torch.set_num_threads(1)
    parts = load_settings(small=size.small)
    bench = Bench(parts["models"]["egnn"], parts["tasks"]["energy_forces"], device, size)
    return size.batch / bench.seconds_per_step()


def rpbe_arm(parts: Parts, device: str, size: Size) -> dict[str, float]:
    """Hours of an arm of EGNN at the paper's settings, from steps measured here."""
    hours, told = 0.0, dict[str, float]()
    for task, epochs in RPBE_EPOCHS.items():
        bench = Bench(parts["models"]["egnn"], parts["tasks"][task], device, size)
        told[f"{task}_seconds"] = bench.seconds_per_step()
        steps = epochs * math.ceil(RPBE_FRAMES / size.batch)
        hours += steps * told[f"{task}_seconds"] / 3600
    return told | {"hours": hours}
