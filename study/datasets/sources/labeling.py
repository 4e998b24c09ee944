"""Frames labelled by an ASE calculator, the teacher: those given, or those of its dynamics.

Such labels cost less than those of a better method, and a model can be pretrained on them. The
work is cut into pieces, which are kept until all is done: an interrupted call goes on from those
that are there, and ends in the same numbers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.core.atomic_io import (
    DamagedFileError,
    discard,
    locked,
    read_hashed,
    remove,
    write_hashed,
)
from study.core.errors import UserError, one_line
from study.core.hashing import digest
from study.core.quantities.properties import GIVEN
from study.datasets.frames import Frames
from study.datasets.readers import ase_file
from study.datasets.sources.calculators import make_calculator, source_of
from study.datasets.sources.worker_process import in_processes

if TYPE_CHECKING:
    from ase import Atoms

PIECE = 50
"""Frames in a piece."""
FRICTION = 0.01
"""1/fs, of Langevin dynamics."""
RELAXED = 0.01
"""eV/Å, the largest force on an atom of a relaxed structure."""
RELAXATION_STEPS = 500

Piece = dict[str, NDArray[np.float64]]
"""positions (Σn, 3) Å, forces (Σn, 3) eV/Å and energies (f,) eV, of one frame after the other."""


@dataclass(frozen=True)
class Sampling:
    """What a structure goes through: it is relaxed, then moves in contact with a heat bath.

    Args:
        frames: kept of each structure; the first is relaxed, so a single one is the equilibrium.
        temperature: K.
        spacing: fs from one frame to the next.
        timestep: fs.
        equilibration: fs before that, at the beginning of the dynamics.
        seed: of velocities and heat bath.
    """

    frames: int
    temperature: float
    spacing: float = 25.0
    timestep: float = 0.5
    equilibration: float = 100.0
    seed: int = 0


def label_frames(
    frames: Frames,
    teacher: str,
    out: Path,
    sampling: Sampling | None,
    workers: int,
    progress: Callable[[int, int], None],
) -> Frames:
    """Label frames, or sample new ones from each, and write them as extxyz.

    Args:
        frames: the structures; a charge and multiplicity among their properties count.
        teacher: one of `XTB`, or MODULE:FACTORY or FILE.py:FACTORY, a function without arguments
            that makes an ASE calculator.
        out: the file.
        sampling: how new frames are made; the given ones are labelled as they are when left out.
        workers: processes.
        progress: told how many pieces of how many are done.

    Returns:
        What was written.

    Raises:
        UserError: if there is no such teacher, or it fails on a structure.
    """
    make_calculator(teacher)
    recipe = [frames.content_hash(), teacher, source_of(teacher), sampling and asdict(sampling)]
    store = out.with_name(f"{out.name}.partial-{digest(recipe)[:12]}")
    with locked(out.with_name(f".{out.name}.lock"), f"{out}: another process is making this file"):
        pieces = _label_pieces(frames, teacher, sampling, store, workers, progress)
        labelled = _joined(frames, sampling, pieces)
        ase_file.write(replace(labelled, origin={"teacher": teacher}), out)
        remove(store)
    return labelled


def _label_pieces(
    frames: Frames,
    teacher: str,
    sampling: Sampling | None,
    store: Path,
    workers: int,
    progress: Callable[[int, int], None],
) -> list[Piece]:
    """Label the pieces that are not in the store yet; return all, in order."""
    atoms = ase_file.structures(frames)
    step = 1 if sampling else PIECE
    pieces = [atoms[first : first + step] for first in range(0, len(atoms), step)]
    done = _finished(store)
    missing = [number for number in range(len(pieces)) if number not in done]
    jobs = {number: (teacher, sampling, number * step, pieces[number]) for number in missing}
    progress(len(done), len(pieces))
    labelled = in_processes(_work, jobs, workers, "computed labels")
    for finished, (number, piece) in enumerate(labelled, len(done) + 1):
        done[number] = _store(store, number, piece)
        progress(finished, len(pieces))
    return [_load(done[number]) for number in range(len(pieces))]


def _work(teacher: str, sampling: Sampling | None, first: int, atoms: list[Atoms]) -> Piece:
    """Label some structures, the first of which is number `first`, or sample from them."""
    rows: list[tuple[Any, ...]] = []
    for number, structure in enumerate(atoms, start=first):
        prepared = _prepared(structure, teacher)
        try:
            moving = _dynamics(prepared, sampling, number) if sampling else iter([prepared])
            rows += [
                (now.positions.copy(), now.get_forces(), now.get_potential_energy(), _stress(now))  # type: ignore[no-untyped-call]
                for now in moving
            ]
        except UserError:
            raise
        # Calculators raise whatever their programs do.
        except Exception as problem:
            what = one_line(problem)
            raise UserError(
                f"structure {number} (from 0), {structure.get_chemical_formula()}: {teacher} fails "  # type: ignore[no-untyped-call]
                f"({what}); leave it out"
            ) from None
    positions, forces, energies, stresses = zip(*rows, strict=True)
    return {
        "positions": np.concatenate(positions),
        "forces": np.concatenate(forces),
        "energies": np.array(energies, dtype=np.float64),
        "stresses": np.stack(stresses),
    }


def _stress(atoms: Atoms) -> NDArray[np.float64]:
    """(3, 3) eV/Å³; NaN where the cell or the teacher has none."""
    from ase.calculators.calculator import PropertyNotImplementedError

    if atoms.pbc.all():
        with suppress(PropertyNotImplementedError, NotImplementedError):
            return np.asarray(atoms.get_stress(voigt=False), dtype=np.float64)  # type: ignore[no-untyped-call]
    return np.full((3, 3), np.nan)


def _prepared(structure: Atoms, teacher: str) -> Atoms:
    """A copy with a new calculator: an old one would begin with what it found before."""
    copy: Atoms = structure.copy()  # type: ignore[no-untyped-call]
    # What ASE's calculators take for the total charge and the unpaired electrons.
    copy.set_initial_charges([structure.info.get("charge", 0.0)] + [0.0] * (len(copy) - 1))  # type: ignore[no-untyped-call]
    unpaired = structure.info.get("multiplicity", 1.0) - 1
    if unpaired:
        copy.set_initial_magnetic_moments([unpaired] + [0.0] * (len(copy) - 1))  # type: ignore[no-untyped-call]
    copy.calc = make_calculator(teacher)
    return copy


def _dynamics(atoms: Atoms, sampling: Sampling, number: int) -> Iterator[Atoms]:
    """The relaxed structure, then those of Langevin dynamics from there."""
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.optimize import BFGS

    if len(atoms) > 1 and not BFGS(atoms, logfile=None).run(RELAXED, RELAXATION_STEPS):  # type: ignore[no-untyped-call]
        raise RuntimeError(f"no structure with forces below {RELAXED} eV/Å found")
    yield atoms
    generator = np.random.default_rng([sampling.seed, number])
    MaxwellBoltzmannDistribution(atoms, temperature_K=sampling.temperature, rng=generator)
    dynamics = Langevin(
        atoms,
        sampling.timestep * units.fs,
        temperature_K=sampling.temperature,
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=generator,
    )
    for frame in range(sampling.frames - 1):
        time = sampling.spacing + (sampling.equilibration if frame == 0 else 0.0)
        dynamics.run(round(time / sampling.timestep))  # type: ignore[no-untyped-call]
        yield atoms


def _joined(frames: Frames, sampling: Sampling | None, pieces: Sequence[Piece]) -> Frames:
    """The frames with new labels, each as often as there are new frames of it."""
    if sampling:
        frames = frames.select(np.repeat(np.arange(len(frames)), sampling.frames))
    arrays: dict[str, Any] = {
        name: np.concatenate([piece[name] for piece in pieces])
        for name in ("positions", "forces", "energies", "stresses")
    }
    given = {name: frames.properties[name] for name in GIVEN if name in frames.properties}
    return replace(frames, **arrays, properties=given)


def _finished(store: Path) -> dict[int, Path]:
    """The pieces of an earlier call, by number."""
    found = {}
    for path in store.glob("*.npz"):
        try:
            read_hashed(path)
            found[int(path.name.partition("-")[0])] = path
        except DamagedFileError:
            discard(path, "it is computed again")
    return found


def _store(store: Path, number: int, piece: Piece) -> Path:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **piece)
    return write_hashed(store, f"{number:06d}", ".npz", buffer.getvalue())


def _load(path: Path) -> Piece:
    return dict(np.load(io.BytesIO(read_hashed(path)), allow_pickle=False))
