"""A model that mace-torch itself trained and saved becomes one of ours that predicts the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from study import foundation
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.packages.config import MACE
from study.models.packages.foundation import read_foundation

mace = pytest.importorskip(
    "study.models.packages.mace", reason="`pip install -e '.[mace]'`", exc_type=ImportError
)
pytestmark = pytest.mark.filterwarnings("ignore:.*TorchScript type system.*:UserWarning")


def trained(heads: int, water: Frames) -> tuple[Any, dict[str, torch.Tensor]]:
    """The package's model after two of its own steps, and a batch as it takes them."""
    settings = MACE(
        name="mace", elements=["H", "O"], hidden=4, cutoff=3.4, max_ell=2, correlation=2
    )
    words = mace.keywords(settings) | {"avg_num_neighbors": 9.0, "radial_MLP": [8]}
    words |= {
        "heads": [f"head {each}" for each in range(heads)],
        "atomic_energies": [[-13.0 - each, -400.0] for each in range(heads)],
        "atomic_inter_scale": [0.8 + each for each in range(heads)],
        "atomic_inter_shift": [0.1] * heads,
    }
    torch.manual_seed(0)
    model = mace.modules.ScaleShiftMACE(**words)
    graph = GraphSet.build(water, 3.4).gather(torch.tensor([0, 1]))
    batch = {
        "positions": graph.pos,
        "edge_index": graph.edge_index,
        "shifts": graph.shift,
        "unit_shifts": graph.shift,
        "cell": graph.cell.reshape(-1, 3),
        "node_attrs": torch.stack([graph.z == 1, graph.z == 8], dim=1).float(),
        "batch": graph.batch,
        "ptr": graph.ptr,
        "head": torch.full((2,), heads - 1),
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        found = model(batch, training=True)
        optimizer.zero_grad()
        (found["forces"] - graph.force).square().sum().backward()
        optimizer.step()
    return model, batch


@pytest.mark.parametrize("heads", [1, 2])
def test_it_predicts_what_the_package_does(heads: int, water: Frames, tmp_path: Path) -> None:
    model, batch = trained(heads, water)
    torch.save(model, tmp_path / "tiny.model")
    chosen = ["--head", f"head {heads - 1}"] if heads > 1 else []
    command = [str(tmp_path / "tiny.model"), "--trust", "--trained-on", "two frames", *chosen]
    assert foundation.main(command) == 0
    with safetensors.safe_open(tmp_path / "tiny.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    told = read_foundation(tmp_path / "tiny.safetensors")
    assert (told.package, told.trained_on) == ("mace", "two frames")
    ours = build_model(MACE.model_validate(told.model), seed=1)
    ours.load_state_dict(weights)
    graph = GraphSet.build(water, 3.4).gather(torch.tensor([0, 1]))
    found, expected = ours(graph), model(batch)
    total = found.energy + ours.reference_energy(graph)
    torch.testing.assert_close(total, expected["energy"].double(), rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(found.forces, expected["forces"], rtol=1e-4, atol=1e-5)


def test_nothing_is_unpickled_unasked(
    water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = trained(2, water)
    torch.save(model, tmp_path / "other.model")
    assert foundation.main([str(tmp_path / "other.model")]) == 2
    assert "is a pickle, which can run any code" in capsys.readouterr().err
    assert foundation.main([str(tmp_path / "other.model"), "--trust"]) == 2
    assert "has the heads head 0, head 1; name one with --head" in capsys.readouterr().err
    torch.save({"model": 1}, tmp_path / "no.model")
    assert foundation.main([str(tmp_path / "no.model"), "--trust"]) == 2
    assert "must be a ScaleShiftMACE of mace-torch, but is dict" in capsys.readouterr().err
    assert not [*tmp_path.glob("*.safetensors")]
