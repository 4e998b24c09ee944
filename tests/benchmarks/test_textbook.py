"""The baseline of the benchmarks computes what our models compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN, GNS, ForceNet, ModelConfig
from study.models.potential import Potential
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.space.trial import Trial
from study.tasks.config import Denoising as DenoisingSettings
from study.tasks.config import EnergyForces as EnergyForcesSettings
from study.tasks.config import Masking as MaskingSettings
from study.tasks.denoising import Denoising
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.tasks.masking import Masking
from tests.benchmarks import plain, textbook
from tests.benchmarks.variants import textbook_frames
from tests.benchmarks.water import water_box

SETTINGS: dict[str, ModelConfig] = {
    "egnn": EGNN(name="egnn", hidden=16, layers=3, basis=8),
    "gns": GNS(name="gns", hidden=16, layers=3),
    "forcenet": ForceNet(name="forcenet", hidden=16, layers=3, frequencies=10),
}
OPTIONS: dict[str, dict[str, int]] = {
    "egnn": {"hidden": 16, "layers": 3, "basis": 8},
    "gns": {"hidden": 16, "layers": 3},
    "forcenet": {"hidden": 16, "layers": 3, "frequencies": 10},
}
CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
FRAMES = torch.arange(2)


def joined(weights: dict[str, Tensor], layer: str, last: str) -> dict[str, Tensor]:
    """Weight and bias of the first linear map on [target, source, edge] of one layer."""
    parts = [weights.pop(f"{layer}.{name}.weight") for name in ("target", "source", last)]
    return {"weight": torch.cat(parts, dim=1), "bias": weights.pop(f"{layer}.target.bias")}


def textbook_weights(ours: Potential, name: str) -> dict[str, Tensor]:
    """Our weights under the names of the textbook."""
    skipped = ("scale", "reference", "frame_reference")
    weights = {key: value for key, value in ours.state_dict().items() if key not in skipped}
    renamed = {}
    for number in range(OPTIONS[name]["layers"]):
        layer = f"layers.{number}"
        network, last, home, later = {
            "egnn": ("edge", "radial", "edge", {1: "2"}),
            "gns": ("edge", "state", "edge.0", {1: "0.2", 3: "0.4", 4: "1"}),
            "forcenet": ("filter", "basis", "filter", {1: "2", 3: "4"}),
        }[name]
        first = joined(weights, layer, last)
        renamed |= {f"{layer}.{home}.0.{part}": value for part, value in first.items()}
        for ours_at, theirs_at in later.items():
            for part in ("weight", "bias"):
                value = weights.pop(f"{layer}.{network}.{ours_at}.{part}")
                renamed[f"{layer}.{network}.{theirs_at}.{part}"] = value
    moved = {"basis.mix.": "mix.", "readout.0.": "readout."} if name == "forcenet" else {}
    for key, value in weights.items():
        for old, new in moved.items():
            key = key.replace(old, new) if key.startswith(old) else key
        renamed[key] = value
    return renamed


@pytest.fixture(scope="module")
def graphs() -> GraphSet:
    """Two frames of 27 molecules, wide enough for minimum images."""
    return GraphSet.build(water_box(27, 2), cutoff=3.4, dtype=torch.float64)


@pytest.fixture(params=SETTINGS)
def pair(request: pytest.FixtureRequest) -> tuple[str, Potential, nn.Module]:
    """A model of ours and the textbook's, with the same random weights."""
    name = request.param
    ours = build_model(SETTINGS[name], seed=0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in ours.parameters():
            noise = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
            weights.add_(noise, alpha=0.05)
    theirs = textbook.MODELS[name](**OPTIONS[name]).double()
    theirs.load_state_dict(textbook_weights(ours, name))
    return name, ours, theirs


def collated(graphs: GraphSet, stage: str, theirs: nn.Module) -> Batch:
    """Both frames, connected by the textbook."""
    frames = textbook.Frames(textbook_frames(graphs), stage)
    return textbook.connect(Batch.from_data_list([frames[0], frames[1]]), 3.4, theirs.most)


def gradient_norm(model: nn.Module) -> Tensor:
    found = [
        weights.grad.square().sum() for weights in model.parameters() if weights.grad is not None
    ]
    return torch.stack(found).sum().sqrt()


def test_neighbours_are_the_same(graphs: GraphSet) -> None:
    ours = graphs.gather(FRAMES)
    frames = [frame.clone() for frame in textbook_frames(graphs)]
    theirs = textbook.connect(Batch.from_data_list(frames), 3.4)
    sets = [
        {
            (*edge, *shift)
            for edge, shift in zip(
                g.edge_index.T.tolist(), g.shift.round(decimals=6).tolist(), strict=True
            )
        }
        for g in (ours, theirs)
    ]
    assert sets[0] == sets[1]
    assert len(sets[0]) > 2000


def test_energies_forces_and_their_gradients_are_the_same(
    pair: tuple[str, Potential, nn.Module], graphs: GraphSet
) -> None:
    _, ours, theirs = pair
    statistics = LabelStatistics.fit(graphs, FRAMES)
    settings = EnergyForcesSettings(name="energy_forces")
    statistics.apply(ours, settings)
    task = EnergyForces(settings, graphs, statistics)
    batch = collated(graphs, "energy_forces", theirs)

    predicted = ours(task.gather(FRAMES))
    energy, vectors = theirs(batch)
    torch.testing.assert_close(energy * statistics.force_rms, predicted.energy, **CLOSE)
    torch.testing.assert_close(vectors * statistics.force_rms, predicted.forces, **CLOSE)

    ours.zero_grad()
    expected = task.loss(ours, FRAMES, torch.Generator())
    units = statistics.energy_std, statistics.force_rms
    loss = textbook.loss(theirs, batch, "energy_forces", units)
    torch.testing.assert_close(loss, expected, **CLOSE)
    expected.backward()
    loss.backward()
    torch.testing.assert_close(gradient_norm(theirs), gradient_norm(ours), **CLOSE)


def test_masking_losses_are_the_same(
    pair: tuple[str, Potential, nn.Module], graphs: GraphSet
) -> None:
    _, ours, theirs = pair
    task = Masking(MaskingSettings(name="masking", masking_ratio=0.5), graphs)
    expected = task.loss(ours, FRAMES, torch.Generator().manual_seed(0))
    left = task.example(FRAMES, torch.Generator().manual_seed(0)).graph

    masked = []
    for number, frame in enumerate(textbook_frames(graphs)):
        seen = left.pos[left.batch == number]
        gone = (frame.pos[:, None] - seen[None]).norm(dim=-1).amin(dim=1) > 0
        atoms = gone.nonzero().flatten().tolist()
        coins = [atom % 3 - 1 for atom in atoms]
        masked.append(textbook.hide(frame, [atom // 3 for atom in atoms], coins))
    batch = textbook.connect(Batch.from_data_list(masked), 3.4, theirs.most)
    loss = textbook.loss(theirs, batch, "masking", (1.0, 1.0))
    torch.testing.assert_close(loss, expected, **CLOSE)
    expected.backward()
    loss.backward()
    torch.testing.assert_close(gradient_norm(theirs), gradient_norm(ours), **CLOSE)


def test_denoising_losses_are_the_same(
    pair: tuple[str, Potential, nn.Module], graphs: GraphSet
) -> None:
    _, ours, theirs = pair
    task = Denoising(DenoisingSettings(name="denoising", noise_scale=0.5), graphs)
    expected = task.loss(ours, FRAMES, torch.Generator().manual_seed(0))
    noisy = task.example(FRAMES, torch.Generator().manual_seed(0))
    batch = Batch.from_data_list(textbook_frames(graphs))
    batch.pos, batch.target = noisy.graph.pos.detach(), noisy.targets
    del batch.masked
    textbook.connect(batch, 3.4, theirs.most)
    loss = textbook.loss(theirs, batch, "denoising", (1.0, 1.0))
    torch.testing.assert_close(loss, expected, **CLOSE)
    expected.backward()
    loss.backward()
    torch.testing.assert_close(gradient_norm(theirs), gradient_norm(ours), **CLOSE)


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_plain_loop_trains_to_the_same_errors_as_a_study(
    tiny: Callable[..., Trial],
    water: Frames,
    water_folder: Path,
    tmp_path: Path,
    *,
    pretrained: bool,
) -> None:
    trial = tiny() if pretrained else tiny(pretrain=None)
    work = Job("trial", trial, water.content_hash())
    for part in filter(None, (work.pretraining, work)):
        ours = [record.metrics for record in run_job(part, tmp_path, water_folder)]
    theirs = [metrics for metrics, _ in plain.train(trial.model_dump(), str(water_folder))]
    assert [each["val_force_rmse"] for each in theirs] == [each["val_force_rmse"] for each in ours]
    assert all((each["compute"] > each["seconds"]) == pretrained for each in theirs)
