"""TIP3P water simulated with OpenMM, as in arXiv:2402.15921.

A trajectory is cut into pieces. Each piece starts in a new context from the state that the piece
before it left on disk, whether or not the process was interrupted in between, so a resumed data
set is bitwise the uninterrupted one.
"""

from __future__ import annotations

import io
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.core.atomic_io import discard, locked, make_folder, remove, rename, write_bytes
from study.core.errors import (
    MACHINE_FAULT,
    RERUN,
    MachineError,
    UserError,
    os_error_message,
)
from study.core.hashing import digest
from study.core.quantities.units import NANOMETRE
from study.datasets.frames import Frames
from study.datasets.parsing.header import read_header
from study.datasets.sources.openmm_water import (
    EQUILIBRATION_PIECES,
    MEASURED,
    PIECE,
    PLATFORM,
    SPACING,
    Piece,
    box_edge,
    cutoff,
    interval,
    openmm,
    seed,
    simulate,
    timestep,
)
from study.datasets.sources.worker_process import end_with_parent

if TYPE_CHECKING:
    from study.datasets.config import TIP3PWater

RECIPE_VERSION = 1
"""Raised when the same recipe gives other numbers."""
LATER_KEYS = ("flexible", "seed")
"""Keys that recipes did not have at first; sets of those recipes keep their names."""
RIGID = (
    "Forces leave out the constraint forces of the rigid molecules, whose bonds and angles have no "
    "energy: the labels are purely intermolecular, and dynamics with a model trained on them needs "
    "the same constraints."
)
FLEXIBLE = "Bonds and angles are harmonic: energies and forces hold their share as well."


def folder_name(recipe: TIP3PWater) -> str:
    """The folder of this recipe's data set; equal recipes share it."""
    return f"tip3p_water-{digest([_named(recipe), RECIPE_VERSION])[:12]}"


def _named(recipe: TIP3PWater) -> dict[str, Any]:
    """What names a set; `flexible` and `seed` only where they are not what they always were."""
    return recipe.model_dump(exclude={name for name in LATER_KEYS if not getattr(recipe, name)})


def seconds_to_make(recipe: TIP3PWater, workers: int) -> float:
    """Expected time on `workers` cores: 0.03 s a frame at 32 molecules, 0.10 s at 258."""
    per_frame = (0.023 + 3.2e-4 * recipe.molecules) * interval(recipe) / 50
    frames = PIECE * _pieces_per_trajectory(recipe)
    rounds = -(-recipe.trajectories // workers)
    return 3.0 + rounds * frames * per_frame


def make(
    recipe: TIP3PWater, root: Path, workers: int, progress: Callable[[int, int], None]
) -> Path:
    """Make the data set unless it is there already; go on where an earlier call was interrupted.

    Args:
        recipe: what to simulate.
        root: folder of all data sets.
        workers: trajectories that run at the same time, one core each.
        progress: called now and then with the pieces done and all pieces.

    Returns:
        The folder with the finished `Frames`, one group per trajectory.

    Raises:
        UserError: if OpenMM is missing, another process makes the same set, or a worker dies.
        MachineError: if the disk does not take what is simulated.
    """
    folder = root / folder_name(recipe)
    partial = root / f"{folder.name}.partial"
    if partial.exists() or not folder.exists():
        busy = f"{folder}: another process is making this data set; wait until it is done"
        with locked(root / f"{folder.name}.lock", busy):
            if not folder.exists():
                rename(_make(recipe, partial, workers, progress), folder)
            remove(partial)
    found, expected = read_header(folder).get("frames"), recipe.trajectories * recipe.frames
    if found != expected:
        raise UserError(
            f"{folder}: `frames` must be {expected}, but frames.json says {found}; "
            "delete the folder, it is made again"
        )
    return folder


def _make(
    recipe: TIP3PWater, partial: Path, workers: int, progress: Callable[[int, int], None]
) -> Path:
    # Another OpenMM may round differently: its pieces are not mixed with these.
    pieces = partial / f"openmm-{openmm().__version__}"
    make_folder(pieces)
    _run_workers(recipe, pieces, workers, progress)
    frames, temperatures = _assemble(recipe, pieces)
    finished = partial / "finished"
    remove(finished)
    write_bytes(finished / "temperatures.npy", _npy(temperatures))
    frames.save(finished)
    return finished


def _run_workers(
    recipe: TIP3PWater, pieces: Path, workers: int, progress: Callable[[int, int], None]
) -> None:
    spawn, count = multiprocessing.get_context("spawn"), min(workers, recipe.trajectories)
    total, running = recipe.trajectories * _pieces_per_trajectory(recipe), []
    faults, tell = spawn.Pipe(duplex=False)
    try:
        for first in range(count):
            mine = range(first, recipe.trajectories, count)
            process = spawn.Process(target=_work, args=(recipe, pieces, mine, tell), daemon=True)
            process.start()
            running.append(process)
        while _some_alive([process.exitcode for process in running], pieces, faults):
            progress(sum(1 for _ in pieces.glob("*.piece")), total)
            wait([process.sentinel for process in running if process.is_alive()], timeout=0.5)
        progress(total, total)
    finally:
        for process in running:
            process.kill()
            process.join()


def _some_alive(exitcodes: list[int | None], pieces: Path, faults: Connection) -> bool:
    if MACHINE_FAULT in exitcodes:
        raise MachineError(f"{faults.recv()}; {RERUN}")
    for code in exitcodes:
        if code not in (None, 0):
            raise UserError(
                f"{pieces}: a simulation process ended with code {code} "
                "(negative: killed by that signal); run again to go on from the finished pieces"
            )
    return None in exitcodes


def _work(
    recipe: TIP3PWater, pieces: Path, trajectories: Iterable[int], faults: Connection
) -> None:
    end_with_parent(on_interrupt=signal.SIG_IGN)  # the parent alone answers Ctrl-C
    try:
        for trajectory in trajectories:
            for _ in _trajectory(recipe, pieces, trajectory):
                pass
    except OSError as problem:
        told = os_error_message(problem)
        faults.send(told if problem.filename else f"{pieces}: {told}")
        sys.exit(MACHINE_FAULT)


def _pieces_per_trajectory(recipe: TIP3PWater) -> int:
    return EQUILIBRATION_PIECES - (-recipe.frames // PIECE)


def _trajectory(recipe: TIP3PWater, pieces: Path, trajectory: int) -> Iterator[Piece]:
    """Pieces in order: read where whole, simulated where missing or damaged.

    Each file begins with the hash of the seal before it and its content, so a piece counts only
    as the continuation of the very piece that it was simulated from.
    """
    seal, state = digest([_named(recipe), RECIPE_VERSION, trajectory]).encode(), b""
    for number in range(_pieces_per_trajectory(recipe)):
        path = pieces / f"{trajectory:04d}-{number:06d}.piece"
        content = _read_sealed(path, seal)
        if content is None:
            if path.exists():
                discard(path, "it is simulated again")
            content = _npz(simulate(recipe, trajectory, number, state.decode()))
            write_bytes(path, sha256(seal + content).digest() + content)
        piece = dict(np.load(io.BytesIO(content), allow_pickle=False))
        seal, state = sha256(seal + content).digest(), piece["state"].tobytes()
        yield piece


def _read_sealed(path: Path, seal: bytes) -> bytes | None:
    if not path.exists():
        return None
    stored = path.read_bytes()
    return stored[32:] if stored[:32] == sha256(seal + stored[32:]).digest() else None


def _npz(piece: Piece) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **piece)
    return buffer.getvalue()


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _assemble(recipe: TIP3PWater, pieces: Path) -> tuple[Frames, NDArray[np.float64]]:
    count, atoms = recipe.trajectories * recipe.frames, 3 * recipe.molecules
    shapes = zip(MEASURED, [(count, atoms, 3), (count, atoms, 3), (count,), (count,)], strict=True)
    joined = {name: np.empty(shape) for name, shape in shapes}
    filled = 0
    for trajectory in range(recipe.trajectories):
        for piece in islice(_trajectory(recipe, pieces, trajectory), EQUILIBRATION_PIECES, None):
            size = len(piece["energies"])
            for name, array in joined.items():
                array[filled : filled + size] = piece[name]
            filled += size
    frames = Frames(
        numbers=np.tile(np.array([8, 1, 1], dtype=np.uint8), count * recipe.molecules),
        positions=joined["positions"].reshape(-1, 3),
        forces=joined["forces"].reshape(-1, 3),
        offsets=np.arange(count + 1) * atoms,
        cells=np.tile(np.eye(3) * box_edge(recipe.molecules) * NANOMETRE, (count, 1, 1)),
        energies=joined["energies"],
        groups=np.repeat(np.arange(recipe.trajectories), recipe.frames),
        origin=_origin(recipe),
    )
    return frames, joined["temperatures"]


def _origin(recipe: TIP3PWater) -> dict[str, Any]:
    equilibration = range(EQUILIBRATION_PIECES)
    return {
        "recipe": _named(recipe),
        "recipe_version": RECIPE_VERSION,
        "openmm": openmm().__version__,
        "platform": {"name": "CPU", **PLATFORM},
        "box_edge_angstrom": box_edge(recipe.molecules) * NANOMETRE,
        "cutoff_angstrom": cutoff(recipe.molecules) * NANOMETRE,
        "timestep_fs": timestep(recipe) * 1000,
        "steps_between_frames": interval(recipe),
        "equilibration_ps": EQUILIBRATION_PIECES * PIECE * SPACING,
        "seeds": [[seed(recipe, t, n) for n in equilibration] for t in range(recipe.trajectories)],
        "remarks": [
            "Frame i of a trajectory is taken after steps_between_frames * (i + 1) steps of "
            "Nosé-Hoover dynamics; temperatures.npy holds its temperature in K.",
            "Each trajectory lists the seeds of its equilibration, 5 ps each; the first also "
            "draws its velocities.",
            FLEXIBLE if recipe.flexible else RIGID,
        ],
    }
