"""Finetuning from a foundation model, whose file here holds a model of this package."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.models.build import build_model
from study.models.config import EGNN
from study.models.packages.foundation import described
from study.models.potential import Potential
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.setup import set_up
from study.space.pretrained import remarks_on_starts
from study.space.search_space import Space, load_space
from study.space.trial import Trial

SETTINGS = EGNN(name="egnn", hidden=8, layers=2, cutoff=3.4, basis=6)
SPACE = """\
question: Does it help?
seeds: [0]
baseline: true
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 4, frames: 3}
  model: {name: egnn}
  pretrain: {from: big.safetensors, package: mace}
  finetune: {task: {name: energy_forces}, epochs: 1, batch_size: 4}
  choice:
    - {transfer: body}
    - {transfer: all}
    - {transfer: all, pretrain: {from: big.safetensors, package: mace, energies: keep}}
profiles: {quick: null}
"""


def make_file(folder: Path, told: str = "many crystals", seed: int = 5) -> Path:
    """A model that puts out something, and energies of lone atoms."""
    model = build_model(SETTINGS, seed=seed)
    model.reference[[1, 8]] = torch.tensor([-13.0, -400.0], dtype=torch.float64)
    path = folder / "big.safetensors"
    said = described("mace", SETTINGS.model_dump(mode="json"), told)
    path.write_bytes(safetensors.torch.save(model.state_dict(), said))
    return path


@pytest.fixture
def space(tmp_path: Path) -> Space:
    make_file(tmp_path)
    return space_in(tmp_path)


def space_in(folder: Path, text: str = SPACE) -> Space:
    path = folder / "founded.yaml"
    path.write_text(text)
    return load_space(str(path), "quick")


def test_models_have_the_settings_of_the_file_also_from_scratch(space: Space) -> None:
    scratch, *founded = space.grid()
    assert scratch.pretrain is None
    assert all(trial.model == SETTINGS for trial in (scratch, *founded))
    labels = [Job("trial", trial, "data").label for trial in founded]
    assert labels == ["egnn foundation big, seed 0"] * 3


def test_its_content_names_the_work_and_its_place_does_not(tmp_path: Path) -> None:
    def keys(folder: Path) -> list[str]:
        return [Job("trial", trial, "data").key for trial in space_in(folder).grid()]

    make_file(tmp_path)
    before = keys(tmp_path)
    other, changed = tmp_path / "other", tmp_path / "changed"
    for folder in (other, changed):
        folder.mkdir()
    make_file(other)
    make_file(changed, seed=6)
    assert keys(other) == before
    assert keys(changed)[0] == before[0]  # From scratch.
    assert not {*keys(changed)[1:]} & {*before}
    assert len({*before}) == 4


@pytest.fixture
def place(water: Frames, tmp_path: Path) -> Path:
    water.save(tmp_path / "water")
    return tmp_path


def begun(trial: Trial, water: Frames, place: Path) -> tuple[Potential, torch.Tensor]:
    """The model before its first step, and (frames, 2) energies that it and the labels tell."""
    work = Job("trial", trial, water.content_hash())
    assert work.pretraining is not None
    assert list(run_job(work.pretraining, place, place / "water")) == []
    setup = set_up(work, trial, place, place / "water", "cpu")
    batch = setup.task.graphs.gather(setup.parts[0])
    energy = setup.model(batch).energy.double() + setup.model.reference_energy(batch)
    return setup.model, torch.stack([energy.detach(), batch.energy], dim=1)


def test_readout_and_energies_are_reset_refitted_or_kept(
    space: Space, water: Frames, place: Path
) -> None:
    _, body, whole, kept = space.grid()
    file = safetensors.torch.load((place / "big.safetensors").read_bytes())
    model, energies = begun(body, water, place)
    assert model.scale != 1
    assert torch.equal(model.readout[-1].weight, torch.zeros_like(file["readout.2.weight"]))
    model, refitted = begun(whole, water, place)
    assert model.scale == 1
    assert torch.equal(model.readout[-1].weight, file["readout.2.weight"])
    # All frames have one sum formula: what is fitted is their mean.
    apart = refitted[:, 0] - refitted[:, 1]
    assert float(apart.mean()) == pytest.approx(0, abs=1e-5)
    assert float(apart.std()) > 1e-3
    model, energies = begun(kept, water, place)
    assert torch.equal(model.reference, file["reference"])
    torch.testing.assert_close(energies[:, 0], refitted[:, 0] + (energies - refitted)[:, 0].mean())


def test_the_plan_warns_of_what_it_has_learned(space: Space, tmp_path: Path) -> None:
    assert next(remarks_on_starts(space.grid(), [0])) == (
        "big has learned many crystals; frames that are tested may be among it, with their labels"
    )
    make_file(tmp_path, told="")
    (told,) = {*remarks_on_starts(space_in(tmp_path).grid(), [0])}
    assert told.startswith("big does not tell what it has learned")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "from: big.safetensors",
            "from: founded.yaml",
            "must be a safetensors file that",
        ),
        ("package: mace}", "trained_on: x}", "needs package: mace"),
        ("{name: egnn}", "{name: egnn, hidden: 16}", "hidden 16 against 8"),
        ("energies: keep", "energies: refit, epochs: 3", "unknown key"),
        ("energies: keep", "energies: guess", "must be one of refit, keep"),
    ],
)
def test_a_bad_one_is_answered_in_a_line(space: Space, old: str, new: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        space_in(space.path.parent, SPACE.replace(old, new))
    assert len(caught.value.problems) == 1
