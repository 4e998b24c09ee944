"""Processes that do steps on command, so that variants take turns and memory is each one's own."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from study.training.runtime import configure_performance
from tests.benchmarks.variants import VARIANTS, Case, Step, Unavailable

SHORTEST = 0.5
"""Seconds of a turn; a turn has one step at least."""
PATIENCE = 3.0
"""Seconds that the end of a process is waited for."""
RATE_ROWS, RATE_WIDTH = 20_000, 128
"""Of the matrices whose product gives the GEMM rate: the edges of 16 × 81 atoms, and F."""
GENTLE = 8
"""Niceness of the processes, so that a benchmark disturbs nobody."""


@dataclass(frozen=True)
class Timing:
    """One turn.

    Args:
        cpu: seconds of all threads, per step.
        wall: seconds per step; on a GPU between two CUDA events.
        steps: in this turn.
        peak: bytes, most memory held so far: resident, or allocated on the GPU.
    """

    cpu: float
    wall: float
    steps: int
    peak: int


class Failed(Exception):  # noqa: N818 - what happened to a worker, in words
    """A worker could not do what it was told."""


class Worker:
    """A process with one variant; `prepare` a case, then `turn` as often as you like.

    Args:
        variant: which of `VARIANTS`.
        limit: seconds that an answer may take.
        memory: bytes that the process may take on top of what it begins with.
    """

    def __init__(self, variant: str, *, limit: float = 600.0, memory: int | None = None) -> None:
        context = _context()
        self.limit = limit
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, variant, memory), daemon=True)
        self.process.start()

    def prepare(self, case: Case, threads: int) -> float:
        """Build the case's step and warm up; the seconds that took, compilation included."""
        return float(self._ask(_prepare, case, threads))

    def turn(self, shortest: float = SHORTEST) -> Timing:
        """Do steps for at least so many seconds."""
        self.begin_turn(shortest)
        return self.end_turn()

    def begin_turn(self, shortest: float = SHORTEST) -> None:
        """Let it do steps meanwhile."""
        self._tell(_turn, shortest)

    def end_turn(self) -> Timing:
        """Wait for the end of the turn."""
        timing = self._hear()
        assert isinstance(timing, Timing)
        return timing

    def flops(self) -> int:
        """Of the matrix products of a step."""
        return int(self._ask(_flops))

    def rate(self) -> dict[str, float]:
        """Of matrix products as large as the networks': `cpu` and `wall` FLOP/s, `error`."""
        return dict(self._ask(_rate))

    def held(self) -> int:
        """Most bytes held so far: resident, or allocated on the GPU."""
        return int(self._ask(_held))

    def edges(self) -> int:
        """Of a step's batch, on average."""
        return int(self._ask(_edges))

    def close(self) -> None:
        """End the process; one that is busy is killed."""
        self.pipe.close()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _ask(self, command: Callable[..., Any], *arguments: Any) -> Any:
        self._tell(command, *arguments)
        return self._hear()

    def _tell(self, command: Callable[..., Any], *arguments: Any) -> None:
        with suppress(OSError):  # `_hear` will say so.
            self.pipe.send((command, arguments))

    def _hear(self) -> Any:
        try:
            if not self.pipe.poll(self.limit):
                raise Failed(f"took longer than {self.limit:g} s")
            answer = self.pipe.recv()
        except (EOFError, OSError):
            raise Failed("its process died, probably for lack of memory") from None
        if isinstance(answer, Unavailable):
            raise answer
        if isinstance(answer, Exception):
            raise Failed(f"{type(answer).__name__}: {str(answer).splitlines()[0][:120]}")
        return answer


@dataclass
class _State:
    """Of a worker process."""

    variant: str
    case: Case | None = None
    step: Step | None = None


def _context() -> Any:
    """New processes, forked where that is safe from one that has all modules already."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _serve(pipe: Any, variant: str, memory: int | None) -> None:
    os.nice(max(0, GENTLE - os.nice(0)))
    if memory is not None:
        taken = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    torch.manual_seed(0)
    state = _State(variant)
    while True:
        try:
            command, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = command(state, *arguments)
        except Exception as problem:
            answer = (
                problem
                if isinstance(problem, Unavailable)
                else RuntimeError(f"{type(problem).__name__}: {problem}")
            )
        pipe.send(answer)


def _prepare(state: _State, case: Case, threads: int) -> float:
    torch.set_num_threads(threads)
    state.case, state.step = case, None
    if VARIANTS[state.variant].sped_up:
        configure_performance(torch.device(case.device), case.settings().hidden)
    started = time.perf_counter()
    state.step = VARIANTS[state.variant].build(case)
    for _ in range(2):
        state.step()
    _synchronize(case.device)
    return time.perf_counter() - started


def _turn(state: _State, shortest: float) -> Timing:
    assert state.step is not None
    assert state.case is not None
    on_gpu = state.case.device.startswith("cuda")
    began = torch.cuda.Event(enable_timing=True) if on_gpu else None
    _synchronize(state.case.device)
    cpu, wall, steps = time.process_time(), time.perf_counter(), 0
    if began is not None:
        began.record()
    while steps == 0 or time.perf_counter() - wall < shortest:
        state.step()
        steps += 1
    elapsed = time.perf_counter() - wall
    if began is not None:
        ended = torch.cuda.Event(enable_timing=True)
        ended.record()
        torch.cuda.synchronize()
        elapsed = began.elapsed_time(ended) / 1000
    return Timing((time.process_time() - cpu) / steps, elapsed / steps, steps, _held(state))


def _flops(state: _State) -> int:
    assert state.step is not None
    with FlopCounterMode(display=False) as counter:
        state.step()
    return int(counter.get_total_flops())


def _rate(state: _State) -> dict[str, float]:
    device = state.case.device if state.case else "cpu"
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(RATE_ROWS, RATE_WIDTH, generator=generator).to(device)
    right = torch.randn(RATE_WIDTH, RATE_WIDTH, generator=generator).to(device)
    product, flops = torch.empty_like(left), 2 * RATE_ROWS * RATE_WIDTH**2
    rates: dict[str, list[float]] = {"cpu": [], "wall": []}
    for _ in range(3):
        _synchronize(device)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(10):
            torch.mm(left, right, out=product)
        _synchronize(device)
        rates["cpu"].append(10 * flops / (time.process_time() - cpu))
        rates["wall"].append(10 * flops / (time.perf_counter() - wall))
    exact = left.double() @ right.double()
    error = float((product - exact).norm() / exact.norm())
    return {name: statistics.median(values) for name, values in rates.items()} | {"error": error}


def _edges(state: _State) -> int:
    assert state.case is not None
    graphs = state.case.graphs()
    return graphs.edges.count(torch.arange(len(graphs))) // 2


def _held(state: _State) -> int:
    if state.case is not None and state.case.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
