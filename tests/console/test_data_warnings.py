"""What `--dry-run` and `run` say of files, before and after they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from study.run import main

SPACE = """question: Does it work?
seeds: [0]
trial:
  dataset: {name: n2p2_file, path: FILE}
  split: {by: frame}
  model: {name: egnn, hidden: 8, layers: 1, cutoff: 3.0}
  pretrain: null
  finetune: {task: {name: energy_forces}, epochs: 1, batch_size: 2}
profiles: {quick: }
"""

DRY = ["--profile", "quick", "--dry-run"]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A space on an n2p2 file whose numbers are in eV and Å."""
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(12):
        places = np.array([[4.0, 4, 4], [4.76, 4.59, 4], [3.24, 4.59, 4]])
        places += rng.normal(scale=0.02, size=(3, 3))
        lines += ["begin", "lattice 9 0 0", "lattice 0 9 0", "lattice 0 0 9"]
        for symbol, place in zip("OHH", places, strict=True):
            numbers = " ".join(f"{x:.6f}" for x in (*place, *rng.normal(size=3)))
            x, y, z, *force = numbers.split()
            lines.append(f"atom {x} {y} {z} {symbol} 0 0 {' '.join(force)}")
        lines += ["energy -14.0", "charge 0", "end"]
    (tmp_path / "input.data").write_text("\n".join(lines) + "\n")
    file = tmp_path / "space.yaml"
    file.write_text(SPACE.replace("FILE", str(tmp_path / "input.data")))
    return file


def test_a_dry_run_warns_of_units_that_look_wrong(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--space",
        str(space),
        "--profile",
        "quick",
        "--dry-run",
        "--out",
        str(tmp_path / "runs"),
    ]
    assert main(command) == 0
    assert "root mean square force component is" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    units = "trial.dataset.units={energy: eV, length: Å}"
    assert main([*command, "--set", units]) == 0
    assert "root mean square force component" not in capsys.readouterr().out


def test_a_unit_that_nobody_knows_is_refused_at_load(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--space",
        str(space),
        "--profile",
        "quick",
        "--dry-run",
        "--out",
        str(tmp_path / "runs"),
    ]
    assert main([*command, "--set", "trial.dataset.units={energy: furlong}"]) == 2
    assert "must be an energy, one of eV, meV, Hartree" in capsys.readouterr().err


def test_a_split_by_frame_is_not_told_to_split_by_frame(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--space", str(space), *DRY, "--out", str(tmp_path / "runs")]) == 0
    assert "all frames are one group" not in capsys.readouterr().out
