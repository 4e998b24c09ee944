"""Loss and gradients as one program, compiled for a model.

Forces are a gradient already, so training needs the gradient of a gradient, which `torch.compile`
cannot give. Here loss, forces and gradients are traced to one graph first, and inductor compiles
that for any number of frames, atoms and edges.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch._inductor import standalone_compile
from torch._inductor.standalone_compile import CompiledArtifact
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch_geometric.data import Batch

from study.models.potential import Potential
from study.tasks.task import Penalty, Term
from study.training.fx_passes import MatmulLayoutPass

CONSTANT = ("units", "weights")
"""Tensors of a batch whose sizes are the same for all batches."""

BOUNDS = (24, 4096 // 3, 4096)
"""Inductor makes other code for larger sizes; which code a batch gets must not depend on others."""

SMALLEST = 2
"""Sizes of 0 and 1 broadcast, so code for larger ones does not suit them."""


@dataclass(frozen=True)
class Layout:
    """What a program gives, and for which batches it is right.

    Args:
        used: for each parameter, whether it learns and the loss depends on it.
        guards: a condition on the sizes that vary, in torch's words.
    """

    used: list[bool]
    guards: str


@dataclass(frozen=True)
class Program:
    """Loss and gradients of one kind of term, compiled."""

    code: CompiledArtifact
    layout: Layout

    def accepts(self, sizes: Sequence[int]) -> bool:
        """Whether the code is right for sizes like these."""
        return ShapeEnv().evaluate_guards_expression(self.layout.guards, sizes)

    def __call__(self, model: Potential, batch: Batch) -> tuple[Tensor, list[Tensor | None]]:
        """The loss, and its gradient for every parameter that it depends on."""
        loss, *found = self.code(*weights_of(model), *tensors_of(batch).values())
        gradients = iter(found)
        return loss, [next(gradients) if used else None for used in self.layout.used]


def compile_program(model: Potential, term: Term) -> Program:
    """A new program for a model and the sizes of a term."""
    traced = _traced(model, term)
    options: dict[str, Any] = {"compile_threads": torch.get_num_threads()}
    if next(model.parameters()).device.type == "cpu":
        options["post_grad_custom_post_pass"] = MatmulLayoutPass()
    with inductor.patch(options):
        code = standalone_compile(traced.graph, traced.inputs, dynamic_shapes="from_graph")
    return Program(code, Layout(traced.used, traced.guards()))


@dataclass(frozen=True)
class _Traced:
    """One graph from weights and batch to the loss and its gradients.

    Args:
        graph: the graph.
        inputs: weights and tensors of the batch, without values.
        used: for each parameter, whether the loss depends on it.
        sizes: what is known of the sizes that vary; compiling adds to it.
        symbols: these sizes.
    """

    graph: GraphModule
    inputs: list[Any]
    used: list[bool]
    sizes: ShapeEnv
    symbols: list[Any]

    def guards(self) -> str:
        """The condition under which it is right, in torch's words."""
        return self.sizes.produce_guards_expression(self.symbols) or "True"


def _traced(model: Potential, term: Term) -> _Traced:
    sizes = ShapeEnv(duck_shape=False)
    mode = FakeTensorMode(shape_env=sizes)
    batch, axes = tensors_of(term.batch), _varying_axes(term.batch)
    fixed = [_fake(mode, weights, None) for weights in weights_of(model)]
    varying = {name: _fake(mode, tensor, axes.get(name)) for name, tensor in batch.items()}
    inputs = [*fixed, *varying.values()]
    graph, used = _trace(model, term, inputs)
    symbols = [varying[name].shape[axis] for name, axis in axes.items()]
    return _Traced(graph, inputs, used, sizes, symbols)


def _trace(
    model: Potential, term: Term, inputs: Sequence[Tensor]
) -> tuple[GraphModule, list[bool]]:
    """One graph from weights and batch to the loss and its gradients.

    Args:
        model: has the weights.
        term: has the penalty.
        inputs: weights and tensors of the batch, without values, of sizes known or not.

    Returns:
        The graph, and for each parameter whether the loss depends on it.
    """
    parameters = [f"model.{name}" for name, _ in model.named_parameters()]
    learning = [f"model.{name}" for name, value in model.named_parameters() if value.requires_grad]
    buffers = [f"model.{name}" for name, _ in model.named_buffers()]
    batch = list(tensors_of(term.batch))
    penalized = _Penalized(model, term.penalty)
    used: list[bool] = []

    def differentiate(*inputs: Tensor) -> list[Tensor]:
        values = dict(zip([*parameters, *buffers, *batch], inputs, strict=True))
        state = {name: values[name].detach().requires_grad_() for name in parameters}
        seen = Batch(**{name: values[name] for name in batch})
        loss = functional_call(penalized, state | {name: values[name] for name in buffers}, (seen,))
        wanted = [state[name] for name in learning]
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        found = dict(zip(learning, gradients, strict=True))
        used[:] = [found.get(name) is not None for name in parameters]
        return [loss.detach(), *(gradient for gradient in found.values() if gradient is not None)]

    graph = make_fx(differentiate, tracing_mode="symbolic")(*inputs)
    # Inductor looks here for what it may know of the sizes.
    outputs: Any = graph.graph.output_node().args[0]
    for node in outputs:
        node.meta["example_value"] = node.meta["val"]
    return graph, used


class _Penalized(nn.Module):
    """A penalty as a module, whose weights `functional_call` can replace."""

    def __init__(self, model: Potential, penalty: Penalty) -> None:
        super().__init__()
        self.model, self.penalty = model, penalty

    def forward(self, batch: Batch) -> Tensor:
        return self.penalty(self.model, batch)


def _fake(mode: FakeTensorMode, tensor: Tensor, varying: int | None) -> Tensor:
    """The tensor without its values, the size along one axis being a symbol."""
    kinds = [
        DimDynamic.DYNAMIC if axis == varying else DimDynamic.STATIC for axis in range(tensor.dim())
    ]
    return mode.from_tensor(
        tensor.detach(), symbolic_context=StatelessSymbolicContext(dynamic_sizes=kinds)
    )


def weights_of(model: Potential) -> list[Tensor]:
    """Parameters and buffers; the latter may be changed by a program."""
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """Tensors of a batch, in the order of their names."""
    return {name: value.contiguous() for name, value in sorted(batch.to_dict().items())}


def _varying_axes(batch: Batch) -> dict[str, int]:
    """The axis of each tensor along which frames, atoms or edges lie one after the other."""
    return {
        name: batch.__cat_dim__(name, value) % value.dim()
        for name, value in sorted(batch.to_dict().items())
        if name not in CONSTANT
    }


def varying_sizes(batch: Batch) -> list[int]:
    """Sizes that differ from batch to batch."""
    return [batch[name].shape[axis] for name, axis in _varying_axes(batch).items()]


def size_classes(sizes: Sequence[int]) -> list[int]:
    """How many of the bounds each size exceeds."""
    return [bisect_left(BOUNDS, size) for size in sizes]
