"""MACE against mace-torch itself, and what is ours alone: marks, copies, elements, safety."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.checks.model_contract import CHECKS, examine
from study.core.errors import UserError
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.packages.config import MACE

mace = pytest.importorskip(
    "study.models.packages.mace", reason="`pip install -e '.[mace]'`", exc_type=ImportError
)
# Inside e3nn, which the package pins.
pytestmark = pytest.mark.filterwarnings("ignore:.*TorchScript type system.*:UserWarning")
SMALL = {
    "name": "mace",
    "elements": ["O", "H"],
    "hidden": 8,
    "cutoff": 3.4,
    "max_ell": 2,
    "correlation": 2,
}
OTHERS = {
    "repulsion": {
        "pair_repulsion": True,
        "distance_transform": "Agnesi",
        "interaction_first": "RealAgnosticDensityInteractionBlock",
        "interaction": "RealAgnosticDensityResidualInteractionBlock",
    },
    "last readout": {"use_last_readout_only": True, "layers": 3, "max_L": 0, "gate": "tanh"},
}


def settings_of(**changes: object) -> MACE:
    return MACE.model_validate(SMALL | changes)


def batch_of(frames: Frames) -> Batch:
    return GraphSet.build(frames, 3.4, dtype=torch.float64).gather(torch.tensor([1, 0]))


def of_the_package(settings: MACE, graph: Batch, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the package's own forward, with its TorchScript, makes of the same weights."""
    network = mace.modules.ScaleShiftMACE(**mace.keywords(settings)).double()
    network.load_state_dict(weights)
    return network(
        {
            "positions": graph.pos.clone(),
            "edge_index": graph.edge_index,
            "shifts": graph.shift,
            "unit_shifts": graph.shift,
            "cell": graph.cell.reshape(-1, 3),
            "node_attrs": torch.stack([graph.z == 1, graph.z == 8], dim=1).double(),
            "batch": graph.batch,
            "ptr": graph.ptr,
        }
    )


@pytest.mark.parametrize("changes", [{}, *OTHERS.values()], ids=["defaults", *OTHERS])
def test_it_predicts_what_the_package_predicts(
    changes: dict[str, object], mixed_water: Frames
) -> None:
    settings, graph = settings_of(**changes), batch_of(mixed_water)
    model = build_model(settings, seed=0).double()
    found, theirs = model(graph), of_the_package(settings, graph, model.network.state_dict())
    torch.testing.assert_close(found.energy, theirs["energy"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.forces, theirs["forces"], rtol=1e-9, atol=1e-9)


def test_the_contract_is_kept() -> None:
    settings = settings_of()
    found = dict(examine(settings.build, settings))
    assert {name: problem for name, problem in found.items() if problem} == {}
    assert found.keys() == CHECKS.keys()


def test_copies_are_no_other_code(mixed_water: Frames) -> None:
    model, graph = build_model(settings_of(), seed=0), batch_of(mixed_water)
    model.freeze_all_but_last(1)
    model.reference.fill_(1 / 3)
    twin = copy.deepcopy(model)
    assert not any(isinstance(each, torch.jit.ScriptModule) for each in twin.modules())
    frozen = [[each.requires_grad for each in one.parameters()] for one in (model, twin)]
    assert frozen[0] == frozen[1]
    assert torch.equal(twin.reference, model.reference)
    graph.pos, graph.shift = graph.pos.float(), graph.shift.float()
    assert torch.equal(twin(graph).forces, model(graph).forces)


def test_an_element_without_weights_is_named(mixed_water: Frames) -> None:
    model = build_model(settings_of(elements=["O", "C"]), seed=0).double()
    with pytest.raises(UserError, match=r"model\.elements: .* lacks H; it has C, O"):
        model(batch_of(mixed_water))


def test_importing_the_package_lets_nobody_unpickle() -> None:
    assert mace.UNPICKLES not in os.environ
