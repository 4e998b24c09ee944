"""Steps of training on a set that the system must read from disk, beside steps from memory.

The set is made here. Before each turn the system is told to drop the pages of its positions and
forces, so that each step waits for the disk as with a set beyond memory.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from study.datasets.frames import Frames
from study.datasets.parsing.array_files import DerivedArrays
from study.datasets.parsing.header import read_header
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.tasks.config import EnergyForces
from study.tasks.task import Term
from study.training.gradients import Engine
from study.training.runtime import configure_performance
from tests.benchmarks.data_scale import run, write_ani1x

CUTOFF, BATCH, STEPS = 5.0, 16, 20
IN_MEMORY = 20_000
"""Frames of the set that is held in memory."""
MADV_DONTNEED = 4


def main() -> None:
    """Measure networks of some sizes, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.data_disk")
    parser.add_argument("--frames", type=int, default=1_000_000, help="of 18 atoms")
    parser.add_argument("--networks", default="32x3,128x5", help="features x layers of EGNN")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each")
    parser.add_argument("--folder", type=Path, help="where the set is made; temporary if left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_ani1x(Path(folder) / "set.h5", options.frames, 18)
        run(["-m", "study.data", "import", f"{folder}/set.h5", "--out", f"{folder}/runs"])
        (stored,) = (each.parent for each in Path(folder).glob("runs/data/*/frames.json"))
        for network in options.networks.split(","):
            hidden, layers = map(int, network.split("x"))
            line = compare(stored, hidden, layers, options.rounds)
            sys.stdout.write(f"EGNN {hidden} x {layers}: {line}\n")


def compare(stored: Path, hidden: int, layers: int, rounds: int) -> str:
    """Turns of steps from memory and from disk, one after the other; medians of each."""
    frames, content = Frames.load(stored, known=True), str(read_header(stored)["content_hash"])
    few = frames.select(np.arange(0, len(frames), max(1, len(frames) // IN_MEMORY)))
    sets = {
        "memory": GraphSet.build(few, CUTOFF),
        "disk": GraphSet.build(frames, CUTOFF, store=DerivedArrays(stored, content)),
    }
    configure_performance(torch.device("cpu"), hidden)
    turns = {name: turn(graphs, hidden, layers) for name, graphs in sets.items()}
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sets}
    for number in range(rounds + 1):
        for name, graphs in sets.items():
            if graphs.files:
                drop(graphs, stored)
            found = next(turns[name])
            if number:  # The first one warms up.
                taken[name].append(found)
    told = []
    for name, found in taken.items():
        wall, cpu, read = (statistics.median(each) for each in zip(*found, strict=True))
        told.append(f"{name} {wall:.2f} ms, {cpu:.2f} of a CPU, {read:.0f} kB read a step")
    for place, clock in enumerate(("wall", "CPU")):
        pairs = zip(taken["disk"], taken["memory"], strict=True)
        ratios = [disk[place] / memory[place] for disk, memory in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4)
        told.append(f"{clock} ratio {middle:.3f}, quartiles {low:.3f} to {high:.3f}")
    return "; ".join(told)


def turn(graphs: GraphSet, hidden: int, layers: int) -> Iterator[tuple[float, float, float]]:
    """Train; of each turn the wall time and the CPU time of a step, ms, and what it read, kB."""
    settings = EGNN(name="egnn", hidden=hidden, layers=layers, cutoff=CUTOFF)
    model, task = build_model(settings, 1), EnergyForces(name="energy_forces").build(graphs)
    task.prepare(model, torch.arange(0, len(graphs), max(1, len(graphs) // IN_MEMORY)))
    step = stepper(Engine(model), task.terms)
    order = iter(torch.randperm(len(graphs)).split(BATCH))
    while True:
        batches = [next(order) for _ in range(STEPS)]
        wall, cpu, read = time.perf_counter(), time.process_time(), bytes_read()
        for frames in batches:
            step(frames)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        yield 1e3 * wall / STEPS, 1e3 * cpu / STEPS, (bytes_read() - read) / STEPS / 1024


def stepper(engine: Engine, terms: Callable[..., list[Term]]) -> Callable[[Tensor], None]:
    """A training step."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(engine.model.parameters())

    def step(frames: Tensor) -> None:
        optimizer.zero_grad()
        engine.backward(terms(frames, generator, 0))
        optimizer.step()

    return step


def drop(graphs: GraphSet, stored: Path) -> None:
    """Let the system forget the pages of positions and forces, those that we map among them."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for name, tensor in (("positions", graphs.pos), ("forces", graphs.force)):
        begin = tensor.data_ptr() // 4096 * 4096
        madvise(begin, tensor.nbytes + tensor.data_ptr() - begin, MADV_DONTNEED)
        file = os.open(stored / f"{name}.npy", os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def bytes_read() -> int:
    """Bytes that this process has had read from disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


if __name__ == "__main__":
    main()
