"""Synthetic water: rigid molecules in a small periodic box, labelled by a smooth pair potential.

Small enough to train on in seconds, and made without any simulation package. The labels are
consistent (forces are the exact negative gradient of the energy), so a potential can learn them.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from study.datasets.frames import Frames
from study.datasets.prepare import folder_of
from study.graphs.graph_set import GraphSet
from study.models.config import EGNN
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.scheduling.protocols import Planned
from study.space.search_space import load_space
from study.space.trial import Trial

Array = NDArray[Any]


SLOW_FILES = (
    "test_run_studies.py",
    "test_compiler.py",
    "test_precision.py",
    "test_report.py",
    "test_catalog.py",
    "test_tip3p.py",
    "test_models_learn.py",
    "test_plugins.py",
)
"""Files that take longest; they come first, so that parallel workers end at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    ranks = {name: rank for rank, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


def pytest_configure(config: pytest.Config) -> None:
    """One thread a process, and Ctrl-C as in a terminal, also where it was ignored."""
    # The order of `pytest_collection_modifyitems`, not by the number of a file's tests.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def user_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Leave the cache and the settings of whoever runs the tests alone."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ[name] = str(tmp_path_factory.mktemp(name.lower()))


CUTOFF = 3.4
RANGE = 3.0
"""Å, where the pair potential and its first two derivatives vanish."""
DEPTHS = {16: 2.0, 9: -1.5, 2: 0.8}
"""eV, of a pair by the sum of its atomic numbers: O–O, O–H, H–H."""
ANGLE = np.radians(104.52) / 2
RIGID = 0.9572 * np.array(
    [[0, 0, 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [-np.sin(ANGLE), np.cos(ANGLE), 0]]
)
"""(3, 3) Å, oxygen and its two hydrogens."""
CUBE = 6.3 * np.eye(3)
TRICLINIC = np.array([[6.4, 0, 0], [1.9, 6.5, 0], [-1.4, 1.7, 6.6]])
IMAGES = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


def random_rotation(rng: np.random.Generator) -> Array:
    """(3, 3) proper rotation, uniformly distributed."""
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return matrix * np.linalg.det(matrix)


def place_molecules(cell: Array, counts: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """(3M, 3) positions of whole molecules, randomly turned on a jittered lattice."""
    sites = np.array(list(itertools.product(*map(range, counts)))) / counts
    origins = sites @ cell + rng.uniform(-0.25, 0.25, (len(sites), 3))
    return np.concatenate([origin + RIGID @ random_rotation(rng) for origin in origins])


def pair_terms(numbers: Array, positions: Array, cell: Array) -> tuple[float, Array, Array]:
    """Energy Σ D·(1 − (r/R)²)³ over all pairs closer than R, their slopes, and their vectors."""
    apart = positions[None] - positions[:, None]
    apart -= np.round(apart @ np.linalg.inv(cell)) @ cell
    vectors = apart[:, :, None] + IMAGES @ cell
    squares = np.square(vectors).sum(axis=-1)
    x = np.where((squares > 1e-9) & (squares < RANGE**2), 1 - squares / RANGE**2, 0.0)
    sums = numbers[:, None].astype(int) + numbers
    depth = np.vectorize(DEPTHS.get)(sums)[:, :, None]
    slope = depth * 3 * x**2 * (-2 / RANGE**2)
    return (depth * x**3).sum() / 2, slope, vectors


def pair_labels(numbers: Array, positions: Array, cell: Array) -> tuple[float, Array]:
    """Energy of that pair potential, and its exact forces."""
    energy, slope, vectors = pair_terms(numbers, positions, cell)
    return energy, (slope[..., None] * vectors).sum(axis=(1, 2))


def pair_stress(numbers: Array, positions: Array, cell: Array) -> Array:
    """(3, 3) exact stress of that pair potential: half the sum of vector ⊗ ∂E/∂vector over V."""
    _, slope, vectors = pair_terms(numbers, positions, cell)
    virial = np.einsum("ijk,ijka,ijkb->ab", slope, vectors, vectors) / 2
    return virial / abs(np.linalg.det(cell))


def labelled(configurations: list[tuple[Array, Array, Array]], groups: list[int]) -> Frames:
    """Frames of (numbers, positions, cell)."""
    labels = [pair_labels(*configuration) for configuration in configurations]
    numbers, positions, cells = zip(*configurations, strict=True)
    return Frames(
        numbers=np.concatenate(numbers),
        positions=np.concatenate(positions),
        forces=np.concatenate([forces for _, forces in labels]),
        offsets=np.cumsum([0, *map(len, numbers)]),
        cells=np.stack(cells),
        energies=np.array([energy for energy, _ in labels]),
        groups=np.array(groups),
        origin={"recipe": "synthetic"},
    )


def with_stresses(frames: Frames) -> Frames:
    """The same frames with the stresses of the pair potential."""
    parts = [frames.select(np.array([index])) for index in range(len(frames))]
    stresses = [pair_stress(part.numbers, part.positions, part.cells[0]) for part in parts]
    return replace(frames, stresses=np.stack(stresses))


def make_water(
    cell: Array, frames: int, seed: int, counts: tuple[int, int, int] = (2, 2, 2)
) -> Frames:
    """Frames of water in groups of three."""
    rng = np.random.default_rng(seed)
    numbers = np.tile([8, 1, 1], np.prod(counts))
    configurations = [(numbers, place_molecules(cell, counts, rng), cell) for _ in range(frames)]
    return labelled(configurations, [frame // 3 for frame in range(frames)])


@pytest.fixture(scope="session")
def water() -> Frames:
    """12 frames of 8 molecules in a cube, in 4 groups; atoms O, H, H, every molecule whole."""
    return make_water(CUBE, 12, seed=0)


@pytest.fixture(scope="session")
def triclinic_water() -> Frames:
    """4 frames of 8 molecules in a skewed cell."""
    return make_water(TRICLINIC, 4, seed=1)


@pytest.fixture(scope="session")
def stressed_water(water: Frames) -> Frames:
    """`water` with the stresses of its potential."""
    return with_stresses(water)


@pytest.fixture(scope="session")
def mixed_water() -> Frames:
    """Frames of 8, 4, 8 and 4 molecules."""
    large, small = make_water(CUBE, 2, seed=2), make_water(CUBE / [1, 1, 2], 2, 3, (2, 2, 1))
    parts = [part.select(np.array([i])) for i in range(2) for part in (large, small)]
    return labelled([(part.numbers, part.positions, part.cells[0]) for part in parts], [0, 1, 2, 3])


@pytest.fixture(scope="session")
def shuffle() -> Callable[[Frames, int], tuple[Frames, Array]]:
    """Permutes the atoms of each frame and wraps each on its own into the cell.

    The second value is where each atom was before: (ΣN,) rows of the original frames.
    """

    def shuffled(frames: Frames, seed: int) -> tuple[Frames, Array]:
        rng = np.random.default_rng(seed)
        came_from = np.concatenate(
            [
                first + rng.permutation(size)
                for first, size in zip(frames.offsets[:-1], frames.sizes, strict=True)
            ]
        )
        cells = frames.cells[np.repeat(np.arange(len(frames)), frames.sizes)]
        positions = frames.positions[came_from]
        fractional = np.linalg.solve(cells.swapaxes(1, 2), positions[..., None])
        positions = positions - np.einsum("ni,nij->nj", np.floor(fractional[..., 0]), cells)
        changed = replace(
            frames,
            numbers=frames.numbers[came_from],
            positions=positions,
            forces=frames.forces[came_from],
        )
        return changed, came_from

    return shuffled


@pytest.fixture(scope="session")
def rotation() -> Callable[[int], Array]:
    """(3, 3) random proper rotation of a seed."""
    return lambda seed: random_rotation(np.random.default_rng(seed))


@pytest.fixture(scope="session")
def relabel() -> Callable[[Frames], Frames]:
    """Labels frames anew with the pair potential."""

    def relabelled(frames: Frames) -> Frames:
        parts = [frames.select(np.array([i])) for i in range(len(frames))]
        configurations = [(part.numbers, part.positions, part.cells[0]) for part in parts]
        return labelled(configurations, frames.groups.tolist())

    return relabelled


@pytest.fixture(scope="session")
def every_water(
    water: Frames,
    triclinic_water: Frames,
    mixed_water: Frames,
    shuffle: Callable[[Frames, int], tuple[Frames, Array]],
) -> dict[str, Frames]:
    """Water in every disguise: whole and in order, skewed, of mixed size, shuffled and wrapped."""
    plain = {"cubic": water, "triclinic": triclinic_water, "mixed": mixed_water}
    return plain | {f"shuffled {name}": shuffle(frames, 5)[0] for name, frames in plain.items()}


@pytest.fixture(scope="session")
def graphs(water: Frames) -> GraphSet:
    """`water`, connected, in float64."""
    return GraphSet.build(water, CUTOFF, dtype=torch.float64)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Trial]:
    """Settings of a trial of a few seconds; arguments replace fields, nested by dots as `__`."""

    def build(**changes: Any) -> Trial:
        stage = {"batch_size": 2, "lr": 0.005}
        masking = {"name": "masking", "masking_ratio": 0.5}
        value: dict[str, Any] = {
            "dataset": {"name": "tip3p_water", "molecules": 8, "trajectories": 4, "frames": 3},
            "model": {"name": "egnn", "hidden": 8, "layers": 2, "cutoff": CUTOFF, "basis": 8},
            "pretrain": stage | {"task": masking, "epochs": 2},
            "finetune": stage | {"task": {"name": "energy_forces"}, "epochs": 3},
        }
        for name, change in changes.items():
            *path, last = name.split("__")
            place = value
            for key in path:
                place = place[key]
            place[last] = change
        return Trial.model_validate(value)

    return build


@pytest.fixture(scope="session")
def egnn() -> EGNN:
    """Settings of a tiny EGNN."""
    return EGNN(name="egnn", hidden=8, layers=2, cutoff=CUTOFF, basis=8)


@pytest.fixture(scope="session")
def water_folder(water: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`water`, saved."""
    folder = tmp_path_factory.mktemp("water")
    water.save(folder)
    return folder


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    """A space with two ratios and two seeds, as a user writes it."""
    path = tmp_path / "ratio.yaml"
    path.write_text(
        """\
question: Which ratio?
seeds: [0, 1]
trial:
  dataset: {name: tip3p_water, molecules: 32, trajectories: 10, frames: 100}
  model: {name: egnn, hidden: 32, layers: 3}
  pretrain:
    task: {name: masking, masking_ratio: {choice: [0.25, 0.5]}}
    epochs: 5
    batch_size: 8
  finetune:
    task: {name: energy_forces}
    epochs: 20
    batch_size: 2
profiles:
  quick:
  longer:
    trial: {finetune: {epochs: 40}, pretrain: {task: {masking_ratio: {choice: [0.9]}}}}
"""
    )
    return path


SMALL_SPACE = f"""\
question: Does masking help?
seeds: [0, 1]
trial:
  dataset: {{name: tip3p_water, molecules: 8, trajectories: 4, frames: 3}}
  model: {{name: egnn, hidden: 8, layers: 2, cutoff: {CUTOFF}, basis: 8}}
  pretrain:
    task: {{name: masking, masking_ratio: 0.5}}
    epochs: 2
    batch_size: 2
  finetune:
    task: {{name: energy_forces}}
    epochs: 20
    batch_size: 2
    lr: 0.01
profiles: {{quick: }}
"""


@pytest.fixture(scope="session")
def small_study(water: Frames, tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    """A study with all four trials done, in this process: two seeds, masked and from scratch."""
    root = tmp_path_factory.mktemp("small")
    (root / "ratio.yaml").write_text(SMALL_SPACE)
    space = load_space(str(root / "ratio.yaml"), "quick")
    frames = folder_of(space.samples[0].dataset, root)
    water.save(frames)
    study = StudyDir(root, space.name)
    study.write(space, "sqlite:///nowhere.db", {frames.name: water.content_hash()})
    journal = Journal(study.journal, space.settings.metric)
    for number, trial in enumerate(space.grid()):
        work = Job("trial", trial, water.content_hash())
        journal.planned(Planned(number, work))
        for part in filter(None, (work.pretraining, work)):
            for record in run_job(part, root, frames):
                journal.recorded(part, record)
        outcome = load_outcome(work.folder(root))
        assert outcome is not None
        journal.ended(work, outcome.result)
    return study
