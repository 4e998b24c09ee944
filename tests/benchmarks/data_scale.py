"""What large sets of molecules cost: import, start of a trial, memory of a second worker, disk.

The set is made here, in the layout of ANI-1x or as extxyz; each figure is that of a process of its
own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from study.core.quantities.elements import SYMBOLS

ELEMENTS = (6, 1, 1, 7, 6, 1, 8, 1, 6)
"""Of the first atoms of a molecule, and again."""
COLUMNS = {
    "frames": "frames",
    "atoms": "atoms",
    "import": "import, s",
    "import_cpu": "import, CPU s",
    "memory": "its peak, MB",
    "disk": "disk, MB",
    "few": "trial of few frames begins, s",
    "few_cpu": "few, CPU s",
    "first": "first trial begins, s",
    "first_cpu": "first, CPU s",
    "start": "second begins, s",
    "start_cpu": "second, CPU s",
    "own": "second's own memory, MB",
    "batch": "batch of 16, ms",
}
"""Headings of the table."""
FEW = 1000
"""Frames that each part of a trial has that does not use the whole set."""
GROWING = ("import_cpu", "first_cpu", "start_cpu", "memory")
"""Columns whose exponents are shown."""


def main() -> None:
    """Measure the sizes that are asked for, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.data_scale")
    parser.add_argument("--frames", default="20000,200000", help="sizes of sets")
    parser.add_argument("--atoms", default="18", help="atoms of a frame")
    parser.add_argument("--folder", type=Path, help="where sets are made; temporary if left out")
    parser.add_argument("--format", choices=SETS, default="ani1x_hdf5")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--few", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        sys.stdout.write(json.dumps(start(options.worker, options.format, few=options.few)))
        return
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for atoms in map(int, options.atoms.split(",")):
            for frames in map(int, options.frames.split(",")):
                rows.append(measure(frames, atoms, Path(folder) / "set", options.format))
                sys.stderr.write(f"{rows[-1]}\n")
    sys.stdout.write(table(rows))


def measure(frames: int, atoms: int, folder: Path, kind: str) -> dict[str, float]:
    """A row of the table: a set is made, imported, and three workers begin a trial on it."""
    folder.mkdir()
    name, write = SETS[kind]
    write(folder / name, frames, atoms)
    out = folder / "runs"
    command = ["-m", "study.data", "import", str(folder / name), "--out", str(out)]
    told, _ = run(command)
    worker = ["-m", "tests.benchmarks.data_scale", "--worker", str(folder), "--format", kind]
    few, first, second = (
        json.loads(run(worker + more)[1]) for more in (["--few"], list[str](), list[str]())
    )
    disk = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    shutil.rmtree(folder)
    return {
        "frames": frames,
        "atoms": atoms,
        "import": told["seconds"],
        "import_cpu": told["cpu"],
        "memory": told["memory"],
        "disk": disk,
        "few": few["seconds"],
        "few_cpu": few["cpu"],
        "first": first["seconds"],
        "first_cpu": first["cpu"],
        "start": second["seconds"],
        "start_cpu": second["cpu"],
        "own": second["own"],
        "batch": second["batch"],
    }


def conformers(frames: int, atoms: int) -> Iterator[tuple[str, Any, Any, Any, Any]]:
    """Name, atomic numbers, positions, energies and forces of some 200 conformers each.

    Atoms are about 1.2 Å apart.
    """
    rng, left = np.random.default_rng(0), frames
    numbers = np.resize(np.array(ELEMENTS, np.uint8), atoms)
    side = math.ceil(atoms ** (1 / 3))
    places = 1.2 * np.stack(np.unravel_index(np.arange(atoms), (side,) * 3), axis=1)
    while left:
        count = min(left, int(rng.integers(100, 300)))
        moved = places + rng.normal(scale=0.05, size=(count, atoms, 3))
        energies = rng.normal(size=count) - 300.0
        forces = rng.normal(scale=0.02, size=moved.shape)
        yield f"molecule{left}", rng.permutation(numbers), moved, energies, forces
        left -= count


def write_ani1x(path: Path, frames: int, atoms: int) -> None:
    """Conformers in the layout of ANI-1x."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, numbers, positions, energies, forces in conformers(frames, atoms):
            group = file.create_group(name)
            group["atomic_numbers"] = numbers
            group["coordinates"] = positions.astype(np.float32)
            group["wb97x_dz.energy"] = energies
            group["wb97x_dz.forces"] = forces.astype(np.float32)


def write_extxyz(path: Path, frames: int, atoms: int) -> None:
    """Conformers as most programs write them."""
    with path.open("w") as file:
        for name, numbers, positions, energies, forces in conformers(frames, atoms):
            symbols = [SYMBOLS[number - 1] for number in numbers]
            for row, energy in zip(np.concatenate([positions, forces], 2), energies, strict=True):
                said = f'energy={energy:.8f} group={name} pbc="F F F"'
                file.write(f"{atoms}\nProperties=species:S:1:pos:R:3:forces:R:3 {said}\n")
                file.writelines(
                    f"{symbol} {' '.join(f'{value:14.8f}' for value in values)}\n"
                    for symbol, values in zip(symbols, row.tolist(), strict=True)
                )


SETS = {"ani1x_hdf5": ("set.h5", write_ani1x), "ase_file": ("set.extxyz", write_extxyz)}
"""Name and writer of the file of a set, by its format."""


def run(arguments: list[str]) -> tuple[dict[str, float], str]:
    """Seconds, those of CPUs and peak memory in MB of a Python process, and its output."""
    started = time.monotonic()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {child.returncode}")
    cpu, seconds = usage.ru_utime + usage.ru_stime, time.monotonic() - started
    return {"seconds": seconds, "cpu": cpu, "memory": usage.ru_maxrss / 1024}, output


def start(folder: Path, kind: str, *, few: bool) -> dict[str, float]:
    """Begin a trial as a worker does whose packages are imported: seconds, MB of its own, ms."""
    import torch

    from study.core.hashing import code_version
    from study.datasets.parsing.header import read_header
    from study.pipeline.job import Job
    from study.pipeline.setup import set_up
    from study.space.trial import Trial
    from study.training.runtime import configure_performance

    (stored,) = (each.parent for each in folder.glob("runs/data/*/frames.json"))
    stage = {"batch_size": 16, "epochs": 1, "lr": 1e-3, "task": {"name": "energy_forces"}}
    held_out = {"validation": FEW, "test": FEW} if few else {}
    trial = Trial.model_validate(
        {
            "dataset": {"name": kind, "path": str(folder / SETS[kind][0])},
            "model": {"name": "egnn", "hidden": 32, "layers": 2, "cutoff": 5.0},
            "finetune": stage | ({"frames": FEW} if few else {}),
            "split": {"by": "frame"} | held_out,
        }
    )
    torch.set_num_threads(1)
    configure_performance(torch.device("cpu"), trial.model.hidden)
    code_version()
    before, began, worked = _own(), time.monotonic(), time.process_time()
    job = Job("trial", trial, str(read_header(stored)["content_hash"]))
    setup = set_up(job, trial, folder / "runs", stored, "cpu")
    order = setup.parts[0][torch.randperm(len(setup.parts[0]))].split(16)
    setup.task.graphs.gather(order[0])
    seconds, cpu = time.monotonic() - began, time.process_time() - worked
    began = time.process_time()
    for some in order[:200]:
        setup.task.graphs.gather(some)
    batch = 1e3 * (time.process_time() - began) / len(order[:200])
    return {"seconds": seconds, "cpu": cpu, "own": _own() - before, "batch": batch}


def _own() -> float:
    """MB that this process has written; what it reads of mapped files is the system's cache."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


def table(rows: list[dict[str, float]]) -> str:
    """Rows as Markdown, with the exponents between each and the one before."""
    lines = [f"| {' | '.join(COLUMNS.values())} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(f'{row[name]:.4g}' for name in COLUMNS)} |" for row in rows]
    return "\n".join([*lines, *_exponents(rows)]) + "\n"


def _exponents(rows: list[dict[str, float]]) -> Iterator[str]:
    for smaller, larger in pairwise(rows):
        changed = [axis for axis in ("frames", "atoms") if smaller[axis] != larger[axis]]
        for axis in changed if len(changed) == 1 else ():
            grown = math.log(larger[axis] / smaller[axis])
            powers = {name: math.log(larger[name] / smaller[name]) / grown for name in GROWING}
            told = ", ".join(f"{name} {power:.2f}" for name, power in powers.items())
            yield f"exponents, {smaller[axis]:.0f} to {larger[axis]:.0f} {axis}: {told}"


if __name__ == "__main__":
    main()
