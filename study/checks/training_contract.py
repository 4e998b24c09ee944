"""What studies rely on when they train a model: its weights, layers, batches and precision."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch_geometric.data import Batch

from study.checks.model_under_test import ModelUnderTest, Outputs, difference, outputs
from study.checks.structures import water_box
from study.graphs.graph_set import edge_vectors
from study.models.layers.radial import distances, nearest_neighbor_mask
from study.models.potential import Potential

FEW_NEIGHBORS = 3
"""Neighbours that an atom of the water box still sees where their number is limited."""


def _training(subject: ModelUnderTest) -> str:
    """Check that second derivatives exist, and that gradients reach every head."""
    model, graph = subject.model, subject.graph(subject.water)
    model.train()
    predicted = model(graph)
    loss = predicted.energy.square().sum() + predicted.forces.square().sum()
    (loss + model.vectors(graph).square().sum()).backward()
    heads = tuple(f"{head}." for head in model.heads)
    weights = [item for item in model.named_parameters() if item[0].startswith(heads)]
    without_gradient = [name for name, weight in weights if weight.grad is None]
    model.zero_grad()
    model.eval()
    return f"no gradient reaches {', '.join(without_gradient)}" if without_gradient else ""


def _batch_mates(subject: ModelUnderTest) -> str:
    model, water, other = subject.model, subject.water, water_box(seed=2)
    smaller = type(other)(other.numbers[:12], other.positions[:12], other.cell)
    alone = subject.graph(water)
    first = _trained(model, alone)
    if difference(_trained(model, alone, seed=1), first, "the seed"):
        return ""  # Dropout and its like draw other numbers for another batch.
    energy, forces, vectors = _trained(model, subject.graph(water, smaller))
    atoms = len(water.numbers)
    problem = difference((energy[:1], forces[:atoms], vectors[:atoms]), first, "another frame")
    if not problem:
        return ""
    return (
        f"{problem} in training, as batch norm does; use a layer norm, or say so with "
        "`independent_frames = False`"
    )


def _state(subject: ModelUnderTest) -> str:
    here, elsewhere = subject.graph(subject.water), subject.graph(water_box(seed=2))
    for training in (False, True):
        model = deepcopy(subject.model).train(training)
        first = _seeded(model, here)
        _seeded(model, elsewhere)
        problem = difference(_seeded(model, here), first, "a call before it")
        if problem:
            mode = "training" if training else "evaluation"
            return f"{problem} in {mode}: predictions must follow from the weights and the graph"
    return ""


def _trained(model: Potential, graph: Batch, seed: int = 0) -> Outputs:
    """What a copy of a model predicts in training mode."""
    return _seeded(deepcopy(model).train(), graph, seed)


def _seeded(model: Potential, graph: Batch, seed: int = 0) -> Outputs:
    torch.manual_seed(seed)
    return outputs(model, graph)


class _Doubles(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes where numbers are computed in float64."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if any(each.dtype == torch.float64 and each.ndim > 0 for each in tensors):
            called = [
                frame
                for frame in traceback.extract_stack()
                if "/torch" not in frame.filename and frame.filename != __file__
            ]
            self.places.append(f"{called[-1].filename}:{called[-1].lineno}: {func}")
        return result


def _precision(subject: ModelUnderTest) -> str:
    graph = subject.graph(subject.water)
    for name, value in graph.to_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point():
            graph[name] = value.float()
    model = subject.build().eval()
    with _Doubles() as doubles:
        outputs(model, graph)
    if not doubles.places:
        return ""
    return (
        "with float32 weights and positions all must be float32, but float64 begins at "
        f"{doubles.places[0]}"
    )


def _seeds(subject: ModelUnderTest) -> str:
    def weights(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return list(subject.build().state_dict().values())

    pairs = zip(weights(5), weights(5), strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        return "initial weights must follow from torch's seed alone, but differ between two builds"
    return ""


def _zero_init(subject: ModelUnderTest) -> str:
    model = subject.build()
    model.load_state_dict(subject.model.state_dict())
    model.double().eval().zero_init_readout()
    predicted = model(subject.graph(subject.water))
    if torch.count_nonzero(predicted.energy) or torch.count_nonzero(predicted.forces):
        return (
            "heads whose last weights are zero must put out zero; name all of them in `heads`, and "
            "let each end in a linear map"
        )
    return ""


def unnamed_layers(model: Potential) -> str:
    """What a model gives up that has layers and does not say which; empty if it names them."""
    lists = [name for name, each in model.named_modules() if isinstance(each, nn.ModuleList)]
    if model.blocks or not lists:
        return ""
    return (
        f"has {', '.join(lists)}, but names no layers in `blocks`, which `trainable` and "
        "`layer_decay` need; define it, or call the list `layers`"
    )


def _blocks(subject: ModelUnderTest) -> str:
    model, layers = subject.model, subject.settings.layers
    blocks = model.blocks
    if not blocks:
        return ""
    if len(blocks) != layers:
        return f"`layers: {layers}` must give as many `blocks`, but gives {len(blocks)}"
    depths = {model.layer_depth(name) for name, _ in model.named_parameters()}
    without = [layers - depth for depth in range(1, layers + 1) if depth not in depths]
    return f"blocks {without} have no weights of their own" if without else ""


def _neighbors(subject: ModelUnderTest) -> str:
    if "max_neighbors" not in type(subject.settings).model_fields:
        return ""
    weights = subject.model.state_dict()
    graph = subject.graph(subject.water)
    distance = distances(edge_vectors(graph, graph.pos))
    near = nearest_neighbor_mask(graph.edge_index[1], distance, FEW_NEIGHBORS).squeeze(-1) > 0
    fewer = graph.clone()
    fewer.edge_index, fewer.shift = graph.edge_index[:, near], graph.shift[near]
    found = []
    for limit, edges in ((FEW_NEIGHBORS, graph), (None, fewer)):
        model = subject.settings.model_copy(update={"max_neighbors": limit}).build()
        model.load_state_dict(weights)
        found.append(outputs(model.double().eval(), edges))
    return difference(found[0], found[1], "`max_neighbors` in place of a shorter list of edges")


CHECKS: dict[str, Callable[[ModelUnderTest], str]] = {
    "energies and forces can be trained on": _training,
    "no frame changes another in training": _batch_mates,
    "predictions depend on no earlier ones": _state,
    "all is computed in the precision of the weights": _precision,
    "seeds decide the initial weights": _seeds,
    "heads can be zero-initialized": _zero_init,
    "layers are known for freezing and decay": _blocks,
    "the number of neighbours is limited as set": _neighbors,
}
