"""Compiles loss and gradients of a model into one program.

Forces are a gradient already, so training needs second derivatives, which `torch.compile` does not
support. Here loss, forces and gradients are first traced into one FX graph, which Inductor then
compiles for any number of frames, atoms and edges. Inductor's private interface that this needs is
named and tested in tests/training/test_program_cache.py.
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

STATIC_TENSORS = ("units", "weights")
"""Tensors of a batch whose sizes are the same for all batches."""

SIZE_BOUNDS = (24, 4096 // 3, 4096)
"""Sizes at which Inductor generates different code. Each class of sizes gets its own program, so
that the code of a batch does not depend on the batches before it."""

MIN_SIZE = 2
"""Smallest size that a program accepts: sizes 0 and 1 broadcast, so they need other code."""


KERNELS_IN_ONE_FILE = {
    "cpp_wrapper": True,
    "cpp_wrapper_build_separate": True,
    "aot_inductor.compile_wrapper_opt_level": "O0",
    "cpp_cache_precompile_headers": False,
}
"""Inductor's options on a CPU, for compiling and loading: the compiler is called twice, for all
kernels at once and, without optimizing, for the long code that calls them in turn."""


@dataclass(frozen=True)
class Layout:
    """Outputs of a program, and the batches for which it is valid.

    Args:
        used: for each parameter, whether it is trainable and the loss depends on it.
        guards: a condition on the varying sizes, as a torch guard expression.
    """

    used: list[bool]
    guards: str


@dataclass(frozen=True)
class Program:
    """Compiled loss and gradients of one kind of term."""

    code: CompiledArtifact
    layout: Layout

    def accepts(self, sizes: Sequence[int]) -> bool:
        """Whether the program is valid for these varying sizes."""
        return ShapeEnv().evaluate_guards_expression(self.layout.guards, sizes)

    def __call__(self, model: Potential, batch: Batch) -> tuple[Tensor, list[Tensor | None]]:
        """Compute the loss () and its gradients, None for parameters that it does not depend on."""
        loss, *computed = self.code(*weights_of(model), *tensors_of(batch).values())
        gradients = iter(computed)
        return loss, [next(gradients) if used else None for used in self.layout.used]


def compile_program(model: Potential, term: Term) -> Program:
    """Compile a program for a model and the sizes of a term."""
    traced = _trace_term(model, term)
    with inductor.patch(options_for(next(model.parameters()).device)):
        code = standalone_compile(traced.graph, traced.inputs, dynamic_shapes="from_graph")
    return Program(code, Layout(traced.used, traced.guards()))


def options_for(device: torch.device) -> dict[str, Any]:
    """Inductor's options on a device."""
    options: dict[str, Any] = {"compile_threads": torch.get_num_threads()}
    if device.type == "cpu":
        return options | KERNELS_IN_ONE_FILE | {"post_grad_custom_post_pass": MatmulLayoutPass()}
    # Inductor times ways to compute on the GPU, of which each rounds in its own way, and pads
    # matrices where that is faster.
    same_numbers = torch.are_deterministic_algorithms_enabled()
    return options | {"deterministic": same_numbers, "shape_padding": not same_numbers}


@dataclass(frozen=True)
class _TracedTerm:
    """An FX graph from weights and batch to the loss and its gradients.

    Args:
        graph: the graph.
        inputs: fake tensors of weights and batch.
        used: for each parameter, whether the loss depends on it.
        sizes: shape environment of the varying sizes; compiling adds guards to it.
        symbols: the varying sizes.
    """

    graph: GraphModule
    inputs: list[Any]
    used: list[bool]
    sizes: ShapeEnv
    symbols: list[Any]

    def guards(self) -> str:
        """Guard expression: the condition on the sizes under which the graph is valid."""
        return self.sizes.produce_guards_expression(self.symbols) or "True"


def _trace_term(model: Potential, term: Term) -> _TracedTerm:
    sizes = ShapeEnv(duck_shape=False)
    mode = FakeTensorMode(shape_env=sizes)
    batch, axes = tensors_of(term.batch), _varying_axes(term.batch)
    fixed = [_fake(mode, weights, None) for weights in weights_of(model)]
    varying = {name: _fake(mode, tensor, axes.get(name)) for name, tensor in batch.items()}
    inputs = [*fixed, *varying.values()]
    graph, used = _trace(model, term, inputs)
    symbols = [varying[name].shape[axis] for name, axis in axes.items()]
    return _TracedTerm(graph, inputs, used, sizes, symbols)


def _trace(
    model: Potential, term: Term, inputs: Sequence[Tensor]
) -> tuple[GraphModule, list[bool]]:
    """Trace one graph from weights and batch to the loss and its gradients.

    Args:
        model: the model with its weights.
        term: the penalty and its batch.
        inputs: fake tensors of weights and batch, of static or symbolic sizes.

    Returns:
        The graph, and for each parameter whether the loss depends on it.
    """
    parameters = [f"model.{name}" for name, _ in model.named_parameters()]
    learning = [f"model.{name}" for name, value in model.named_parameters() if value.requires_grad]
    buffers = [f"model.{name}" for name, _ in model.named_buffers()]
    batch = list(tensors_of(term.batch))
    penalty = _PenaltyModule(model, term.penalty)
    used: list[bool] = []

    def differentiate(*inputs: Tensor) -> list[Tensor]:
        values = dict(zip([*parameters, *buffers, *batch], inputs, strict=True))
        state = {name: values[name].detach().requires_grad_() for name in parameters}
        replaced = Batch(**{name: values[name] for name in batch})
        loss = functional_call(
            penalty, state | {name: values[name] for name in buffers}, (replaced,)
        )
        weights = [state[name] for name in learning]
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        by_name = dict(zip(learning, gradients, strict=True))
        used[:] = [by_name.get(name) is not None for name in parameters]
        return [loss.detach(), *(gradient for gradient in by_name.values() if gradient is not None)]

    graph = make_fx(differentiate, tracing_mode="symbolic")(*inputs)
    # Inductor reads the sizes of the outputs from here.
    outputs: Any = graph.graph.output_node().args[0]
    for node in outputs:
        node.meta["example_value"] = node.meta["val"]
    return graph, used


class _PenaltyModule(nn.Module):
    """Wraps a penalty as a module, so that `functional_call` can replace the weights."""

    def __init__(self, model: Potential, penalty: Penalty) -> None:
        super().__init__()
        self.model, self.penalty = model, penalty

    def forward(self, batch: Batch) -> Tensor:
        return self.penalty(self.model, batch)


def _fake(mode: FakeTensorMode, tensor: Tensor, varying: int | None) -> Tensor:
    """Make a fake tensor whose size along one axis is symbolic."""
    dynamic_sizes = [
        DimDynamic.DYNAMIC if axis == varying else DimDynamic.STATIC for axis in range(tensor.dim())
    ]
    return mode.from_tensor(
        tensor.detach(), symbolic_context=StatelessSymbolicContext(dynamic_sizes=dynamic_sizes)
    )


def weights_of(model: Potential) -> list[Tensor]:
    """Parameters and buffers, detached; a program may change buffers in place."""
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """Tensors of a batch in the order of their names."""
    return {name: value.contiguous() for name, value in sorted(batch.to_dict().items())}


def _varying_axes(batch: Batch) -> dict[str, int]:
    """Axis of each tensor along which frames, atoms or edges are concatenated."""
    return {
        name: batch.__cat_dim__(name, value) % value.dim()
        for name, value in sorted(batch.to_dict().items())
        if name not in STATIC_TENSORS
    }


def varying_sizes(batch: Batch) -> list[int]:
    """Sizes of a batch that differ from batch to batch, by name of the tensor."""
    return [batch[name].shape[axis] for name, axis in _varying_axes(batch).items()]


def size_classes(sizes: Sequence[int]) -> list[int]:
    """Class of each size: the number of `SIZE_BOUNDS` that it exceeds."""
    return [bisect_left(SIZE_BOUNDS, size) for size in sizes]
