"""TIP3P water: the physics of what is stored, and that no interruption changes it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import study
from study import data
from study.core.atomic_io import locked
from study.core.errors import MACHINE_FAULT, MachineError, UserError
from study.core.hashing import digest
from study.datasets.config import TIP3PWater
from study.datasets.frames import Frames
from study.datasets.inspection import summary
from study.datasets.sources import openmm_water, tip3p
from study.datasets.sources.openmm_water import box_edge, build_box

openmm = pytest.importorskip("openmm", reason="OpenMM makes the data under test")
RECIPE = TIP3PWater(name="tip3p_water", molecules=8, trajectories=2, frames=60)
COMMAND = ("tip3p", "--molecules", "8", "--trajectories", "2", "--frames", "60", "--workers", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two uninterrupted trajectories of 8 molecules."""
    return tip3p.make(RECIPE, tmp_path_factory.mktemp("whole"), 2, lambda _done, _total: None)


@pytest.fixture(scope="module")
def frames(folder: Path) -> Frames:
    return Frames.load(folder)


@pytest.fixture(scope="module")
def reference() -> Any:
    """OpenMM's double precision platform, with the same system and grid for PME."""
    system, positions = build_box(RECIPE.molecules)
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    cpu = context_on("CPU", system)
    energy_and_forces(cpu, positions * 10)
    force.setPMEParameters(*force.getPMEParametersInContext(cpu))
    return context_on("Reference", system)


def context_on(platform: str, system: Any) -> Any:
    integrator = openmm.VerletIntegrator(0.001)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))


def energy_and_forces(context: Any, positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Of positions in Å: kJ/mol and kJ/mol/nm."""
    context.setPositions(positions / 10)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def start_command(out: Path) -> subprocess.Popen[str]:
    root = str(Path(study.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "study.data", *COMMAND, "--out", str(out)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_pieces(out: Path, count: int) -> list[Path]:
    for _ in range(1200):
        if len(pieces := sorted(out.rglob("*.piece"))) >= count:
            return pieces
        time.sleep(0.05)
    pytest.fail(f"no {count} pieces after a minute")


def test_the_box_of_the_paper_holds_258_molecules() -> None:
    system, positions = build_box(258)
    assert positions.shape == (774, 3)
    edges = [vector[i]._value for i, vector in enumerate(system.getDefaultPeriodicBoxVectors())]
    assert edges == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("molecules", [8, 31, 32, 33, 64])
def test_any_number_of_molecules_fills_the_box_at_the_density_of_the_paper(molecules: int) -> None:
    system, positions = build_box(molecules)
    assert system.getNumParticles() == len(positions) == 3 * molecules
    assert molecules / box_edge(molecules) ** 3 == pytest.approx(258 / 8)


def test_frames_are_in_order_of_trajectory(frames: Frames) -> None:
    assert frames.groups.tolist() == [0] * 60 + [1] * 60
    assert frames.numbers.reshape(120, 8, 3).tolist() == [[[8, 1, 1]] * 8] * 120


def test_trajectories_differ(frames: Frames) -> None:
    first, second = frames.positions.reshape(2, 60, 24, 3)
    assert np.abs(first - second).max(axis=(1, 2)).min() > 0.5


def test_every_molecule_is_rigid_and_whole(frames: Frames) -> None:
    oxygen, *hydrogens = np.moveaxis(frames.positions.reshape(-1, 3, 3), 1, 0)
    one, two = (hydrogen - oxygen for hydrogen in hydrogens)
    lengths = np.linalg.norm([one, two], axis=-1)
    np.testing.assert_allclose(lengths, 0.9572, atol=1e-4)
    angles = np.degrees(np.arccos(np.sum(one * two, axis=1) / lengths.prod(axis=0)))
    np.testing.assert_allclose(angles, 104.52, atol=0.02)


def test_temperature_is_that_of_the_recipe(folder: Path) -> None:
    temperatures = np.load(folder / "temperatures.npy")
    assert temperatures.shape == (120,)
    # Eight molecules have 45 degrees of freedom: one frame fluctuates by 63 K.
    assert temperatures.mean() == pytest.approx(300, abs=50)


def test_labels_are_those_of_the_double_precision_platform(frames: Frames, reference: Any) -> None:
    for i in (0, 59, 60, 119):
        energy, forces = energy_and_forces(reference, frames.positions[24 * i : 24 * (i + 1)])
        # 1 kJ/mol = 1000 J / 6.02214076e23 = 1.0364270e-2 eV; nm to Å is another factor 10.
        assert frames.energies[i] == pytest.approx(energy * 1.0364270e-2, abs=1e-4)
        expected = forces * 1.0364270e-3
        np.testing.assert_allclose(frames.forces[24 * i : 24 * (i + 1)], expected, atol=1e-4)


def test_force_on_a_molecule_is_the_energy_gradient_of_moving_it(
    frames: Frames, reference: Any
) -> None:
    positions, step = frames.positions[:24], 1e-3
    for axis in range(3):
        move = np.zeros((24, 3))
        move[3:6, axis] = step
        ahead, behind = (energy_and_forces(reference, positions + s * move)[0] for s in (1, -1))
        slope = (ahead - behind) / (2 * step) * 1.0364270e-2
        # PME forces and energies agree only up to its interpolation error.
        assert frames.forces[3:6, axis].sum() == pytest.approx(-slope, abs=0.01)


def test_a_finished_set_is_not_made_again(folder: Path) -> None:
    before = (folder / "frames.json").stat().st_mtime_ns
    assert tip3p.make(RECIPE, folder.parent, 2, lambda _done, _total: None) == folder
    assert (folder / "frames.json").stat().st_mtime_ns == before
    assert not list(folder.parent.glob("*.partial"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_full_disk_is_told_by_the_process_that_simulates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Iterator[Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tip3p, "_trajectory", refuse)
    monkeypatch.setattr(tip3p, "end_with_parent", lambda **_: None)
    faults, tell = multiprocessing.Pipe(duplex=False)
    with pytest.raises(SystemExit) as ended:
        tip3p._work(RECIPE, tmp_path, [0], tell)
    assert ended.value.code == MACHINE_FAULT
    with pytest.raises(MachineError, match=f"{tmp_path}: No space left on device; fix this"):
        tip3p._some_alive([None, MACHINE_FAULT], tmp_path, faults)


def test_killed_and_damaged_runs_end_in_the_same_bits(frames: Frames, tmp_path: Path) -> None:
    process = start_command(tmp_path)
    wait_for_pieces(tmp_path, 3)
    process.kill()
    # The workers hold the pipe as well: it ends only when they have ended.
    process.communicate(timeout=10)
    pieces = wait_for_pieces(tmp_path, 3)
    torn, flipped = pieces[0], pieces[-1]
    torn.write_bytes(torn.read_bytes()[:-100])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    process = start_command(tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert frames.content_hash() in output
    assert [path.name for path in (tmp_path / "data").iterdir() if path.is_dir()] == [
        tip3p.folder_name(RECIPE)
    ]


def test_whole_pieces_are_not_simulated_again(tmp_path: Path) -> None:
    process = start_command(tmp_path)
    wait_for_pieces(tmp_path, 1)
    process.send_signal(signal.SIGINT)
    assert "run again" in process.communicate(timeout=10)[0]
    assert process.returncode == 130
    first = wait_for_pieces(tmp_path, 1)[0]
    written, count = first.stat().st_mtime_ns, len(wait_for_pieces(tmp_path, 1))
    process = start_command(tmp_path)
    wait_for_pieces(tmp_path, count + 1)
    process.kill()
    process.communicate(timeout=10)
    assert first.stat().st_mtime_ns == written


def test_a_set_in_the_making_is_refused_with_its_folder(tmp_path: Path) -> None:
    name = tip3p.folder_name(RECIPE)
    with (
        locked(tmp_path / f"{name}.lock", "busy"),
        pytest.raises(UserError, match=f"{name}: another process is making"),
    ):
        tip3p.make(RECIPE, tmp_path, 1, lambda _done, _total: None)


def test_every_field_of_the_recipe_names_another_folder() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"molecules": 9},
        {"trajectories": 3},
        {"frames": 61},
        {"temperature": 301.0},
        {"flexible": True},
    ]
    assert len({tip3p.folder_name(RECIPE.model_copy(update=c)) for c in changes}) == len(changes)


def test_rigid_sets_keep_the_names_that_they_have_always_had() -> None:
    assert tip3p.folder_name(TIP3PWater(name="tip3p_water")) == "tip3p_water-9e671fce27c5"
    assert tip3p.folder_name(RECIPE) == "tip3p_water-5a21ea7ef9d3"


FLEXIBLE = RECIPE.model_copy(update={"flexible": True, "frames": 20})


@pytest.fixture(scope="module")
def swinging() -> dict[str, np.ndarray]:
    """20 frames of flexible water after 2 ps of equilibration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openmm_water, "EQUILIBRATION_PIECES", 1)
        patch.setattr(openmm_water, "PIECE", 20)
        equilibrated = openmm_water.simulate(FLEXIBLE, 0, 0, "")
        return openmm_water.simulate(FLEXIBLE, 0, 1, equilibrated["state"].tobytes().decode())


def test_flexible_frames_are_as_far_apart_as_rigid_ones() -> None:
    for recipe, timestep in ((RECIPE, 0.002), (FLEXIBLE, 0.0005)):
        assert openmm_water.timestep(recipe) == timestep
        assert openmm_water.interval(recipe) * timestep == pytest.approx(0.1)


def test_bonds_of_flexible_water_swing_about_the_rigid_length(
    swinging: dict[str, np.ndarray],
) -> None:
    molecules = swinging["positions"].reshape(-1, 3, 3)
    lengths = np.linalg.norm(molecules[:, 1:] - molecules[:, :1], axis=2)
    # The stretch is harmonic with k = 462750 kJ/mol/nm²: √(kT/k) = 0.0232 Å at 300 K.
    assert lengths.std() == pytest.approx(0.0232, rel=0.3)
    assert lengths.mean() == pytest.approx(0.9572, abs=0.03)
    assert swinging["temperatures"].mean() == pytest.approx(300, abs=60)


def test_forces_of_flexible_water_are_the_energy_gradient_of_every_atom(
    swinging: dict[str, np.ndarray],
) -> None:
    positions, forces, step = swinging["positions"][0], swinging["forces"][0], 1e-3
    context = context_on("Reference", build_box(FLEXIBLE.molecules, flexible=True)[0])
    for atom, axis in ((0, 0), (1, 1), (5, 2)):
        move = np.zeros((24, 3))
        move[atom, axis] = step
        ahead, behind = (energy_and_forces(context, positions + s * move)[0] for s in (1, -1))
        slope = (ahead - behind) / (2 * step) * 1.0364270e-2
        assert forces[atom, axis] == pytest.approx(-slope, abs=0.01)


def test_missing_openmm_is_answered_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openmm", None)
    with pytest.raises(UserError, match="pip install openmm"):
        tip3p.make(RECIPE, tmp_path, 1, lambda _done, _total: None)


def test_importing_does_not_load_openmm() -> None:
    code = "import sys, study.data, study.datasets.sources.tip3p; sys.exit('openmm' in sys.modules)"
    root = str(Path(study.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=True)


def test_a_bad_option_is_named_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.main(["tip3p", "--molecules", "7", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("--molecules: ")


def test_inspect_measures_across_the_border_of_the_box() -> None:
    # Two waters in 10 Å; the second is the first moved by 3 Å in y, both cut by the border in x.
    water = np.array([[9.8, 5, 5], [0.7572, 5, 5], [9.8, 5.9572, 5]])
    frames = Frames(
        numbers=np.array([8, 1, 1] * 2),
        positions=np.concatenate([water, water + np.array([0, 3, 0])]),
        forces=np.tile([0.0, 3, 4], (6, 1)),
        offsets=np.array([0, 6]),
        cells=10 * np.eye(3)[None],
        energies=np.array([-1.2]),
        groups=np.array([0]),
    )
    rows = summary(frames)
    assert rows["atoms in all"] == "4 H, 2 O"
    assert rows["O-H distance"] == "0.9572 Å in 1 frames"
    assert rows["shortest contact between molecules"].startswith("2.043 Å")
    # 2 * 18.015 u in 1000 Å³.
    assert rows["density"].startswith("0.0598 g/cm³")
    assert rows["energy"].startswith("-0.20000 eV/atom")
    assert rows["largest force"] == "5.000 eV/Å"


def test_a_seed_makes_independent_trajectories_and_none_leaves_old_sets_as_they_are() -> None:
    plain = RECIPE.model_copy(update={"trajectories": 1, "frames": 2})
    old = plain.model_dump(exclude={"flexible", "seed"})
    assert tip3p.folder_name(plain) == f"tip3p_water-{digest([old, tip3p.RECIPE_VERSION])[:12]}"
    own = plain.of_trial(5)
    assert own is plain
    per_trial = plain.model_copy(update={"seed": "trial"})
    assert per_trial.of_trial(0) == plain
    seeded = [per_trial.of_trial(seed) for seed in (1, 2)]
    assert len({tip3p.folder_name(recipe) for recipe in (plain, *seeded)}) == 3
    numbers = {
        openmm_water.seed(recipe, trajectory, number)
        for recipe in (plain, *seeded)
        for trajectory in range(10)
        for number in range(openmm_water.EQUILIBRATION_PIECES)
    }
    assert len(numbers) == 120
    assert all(0 < number < 2**31 for number in numbers)
    first, again, other = (
        openmm_water.simulate(recipe, 0, 0, "")["state"].tobytes()
        for recipe in (seeded[0], seeded[0], seeded[1])
    )
    assert first == again != other
