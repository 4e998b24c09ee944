from __future__ import annotations

from pathlib import Path

import pytest

from study import run
from study.core.errors import UserError
from study.planning.cost_model import STARTUP, Cost
from study.planning.plan import Plan
from study.planning.remaining_cost import RemainingCost
from study.planning.step_timer import Probe
from study.space.search_space import load_space

SPACE = """\
question: Which ratio?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 4, frames: 10}
  model: {name: egnn, hidden: 8, layers: 2}
  pretrain:
    task: {name: masking, masking_ratio: 0.5}
    epochs: 5
    batch_size: 2
  finetune:
    task: {name: energy_forces}
    epochs: 20
    batch_size: 2
profiles:
  quick:
  longer:
    trial: {finetune: {epochs: 40}, pretrain: {epochs: 10}}
"""


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    path = tmp_path / "ratio.yaml"
    path.write_text(SPACE)
    return path


def probe(space_file: Path, profile: str) -> Probe:
    space = load_space(str(space_file), profile)
    return Probe(Plan(space, space_file.parent / "runs", "name", ""), "cpu")


def cost_of(probe: Probe) -> Cost:
    return RemainingCost(probe.plan).cost(probe)


def test_twice_the_epochs_cost_twice_the_compute(space_file: Path) -> None:
    short = probe(space_file, "quick")
    cost = cost_of(short)
    longer = probe(space_file, "longer")
    longer.speeds, longer.models = short.speeds, short.models
    stages = len(short.plan.stages)
    assert stages == 3
    for once, twice, startup in zip(cost.seconds, cost_of(longer).seconds, STARTUP, strict=True):
        assert once > stages * startup
        assert twice - stages * startup == pytest.approx(2 * (once - stages * startup))


def test_each_kind_of_stage_is_measured_once_and_nothing_is_written(space_file: Path) -> None:
    measured = probe(space_file, "quick")
    cost = cost_of(measured)
    assert len(measured.speeds) == 2
    for speed in measured.speeds.values():
        assert 0 < speed.step[0] <= speed.step[1]
        assert 0 <= speed.validation[0] <= speed.validation[1]
    assert cost.seconds[0] < cost.seconds[1]
    assert cost.memory > 50 * 2**20
    # 40 frames of 24 atoms with positions and forces.
    assert cost.disk > 40 * 24 * 48
    assert [path.name for path in space_file.parent.iterdir()] == [space_file.name]


def test_a_file_that_was_not_read_cannot_be_probed(space_file: Path) -> None:
    file = space_file.parent / "my.extxyz"
    file.touch()
    text = SPACE.replace(
        "{name: tip3p_water, molecules: 8, trajectories: 4, frames: 10}",
        f"{{name: ase_file, path: {file}}}",
    )
    space_file.write_text(text)
    with pytest.raises(UserError, match="has not been read yet"):
        cost_of(probe(space_file, "quick"))


def test_the_command_shows_what_was_measured(
    space_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--profile", "quick", "--out", str(space_file.parent / "runs"), "--probe"]
    assert run.main(["--space", str(space_file), *options]) == 0
    shown = capsys.readouterr().out
    for word in ("compute", "time", "memory", "disk"):
        assert f"\n  {word} " in shown
    assert [path.name for path in space_file.parent.iterdir()] == [space_file.name]
