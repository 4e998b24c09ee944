"""Gradients of a loss: by autograd, or by code compiled for the model.

Forces are a gradient already, so training needs the gradient of a gradient, which `torch.compile`
cannot give. Here loss, forces and gradients are traced to one graph first, and inductor compiles
that for any number of frames, atoms and edges.
"""

from __future__ import annotations

import io
import json
import platform
import shutil
import tempfile
import zipfile
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch._inductor import standalone_compile
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch._inductor.runtime.cache_dir_utils import cache_dir
from torch._inductor.standalone_compile import CompiledArtifact
from torch._inductor.utils import fresh_cache
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch_geometric.data import Batch

from study.durable import DamagedFileError, discard, is_mine, read_hashed, write_hashed
from study.identity import code_version, digest, own_version
from study.models.potential import Potential
from study.precision import Precision, products
from study.tasks import Penalty, Term

aten = torch.ops.aten

CONSTANT = ("units", "weights")
"""Tensors of a batch whose sizes are the same for all batches."""
BOUNDS = (24, 4096 // 3, 4096)
"""Inductor makes other code for larger sizes; which code a batch gets must not depend on others."""
SMALLEST = 2
"""Sizes of 0 and 1 broadcast, so code for larger ones does not suit them."""
LAYOUT, CODE = "layout.json", "code"
"""Files of a stored program, beside its kernels."""


def can_compile(device: torch.device) -> bool:
    """Whether this machine has what inductor needs."""
    return device.type == "cuda" or shutil.which("g++") is not None


class Engine:
    """Takes the gradients of a model.

    Args:
        model: whose parameters get gradients.
        compiled: by compiled code, where sizes allow; by autograd otherwise.
        store: folder of compiled code, shared by processes; kept by this one alone without it.
        precision: of products of matrices.
    """

    def __init__(
        self,
        model: Potential,
        *,
        compiled: bool = False,
        store: Path | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.model, self.compiled, self.store, self.precision = model, compiled, store, precision
        self._programs: dict[str, Program] = {}

    def backward(self, terms: Sequence[Term]) -> Tensor:
        """Add the gradients of the weighted sum of the terms to the parameters' `grad`.

        Returns:
            () the sum.
        """
        return torch.stack([term.weight * self._backward(term) for term in terms]).sum()

    def _backward(self, term: Term) -> Tensor:
        with products(self.precision, next(self.model.parameters()).device):
            return self._add(term)

    def _add(self, term: Term) -> Tensor:
        program = self._program(term) if self.compiled else None
        if program is None:
            loss = term.penalty(self.model, term.batch)
            (term.weight * loss).backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        loss, gradients = program(self.model, term.batch)
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            if gradient is not None:
                weighted = term.weight * gradient
                parameter.grad = weighted if parameter.grad is None else parameter.grad + weighted
        return loss

    def _program(self, term: Term) -> Program | None:
        """Compiled code for the term, if there can be any for sizes like these."""
        sizes = _varying_sizes(term.batch)
        if min(sizes) < SMALLEST:
            return None
        kind = f"{term.name} {_classes(sizes)}"
        if kind not in self._programs:
            self._programs[kind] = load_or_compile(self.model, term, self.store, self.precision)
        program = self._programs[kind]
        return program if program.suits(sizes) else None


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

    def suits(self, sizes: Sequence[int]) -> bool:
        """Whether the code is right for sizes like these."""
        return ShapeEnv().evaluate_guards_expression(self.layout.guards, sizes)

    def __call__(self, model: Potential, batch: Batch) -> tuple[Tensor, list[Tensor | None]]:
        """The loss, and its gradient for every parameter that it depends on."""
        loss, *found = self.code(*_weights(model), *_tensors(batch).values())
        gradients = iter(found)
        return loss, [next(gradients) if used else None for used in self.layout.used]


def load_or_compile(
    model: Potential, term: Term, store: Path | None, precision: Precision = "float32"
) -> Program:
    """The program for a model and the sizes of a term; one process compiles, others wait."""
    if store is None:
        with fresh_cache():
            return _compile(model, term)
    key = _key(model, term, precision)
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(store / f"{key}.lock"):
        # Whoever has made it decides what runs here.
        for path in filter(is_mine, store.glob(f"{key}-*.zip")):
            try:
                return _unpack(read_hashed(path))
            except DamagedFileError:
                discard(path, "it is compiled again")
        # Inductor would take what its own cache has for whole without looking.
        with fresh_cache():
            program = _compile(model, term)
            write_hashed(store, key, ".zip", _pack(program))
        return program


def _compile(model: Potential, term: Term) -> Program:
    traced = _traced(model, term)
    options: dict[str, Any] = {"compile_threads": torch.get_num_threads()}
    if next(model.parameters()).device.type == "cpu":
        options["post_grad_custom_post_pass"] = FastProducts()
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
    batch, axes = _tensors(term.batch), _varying_axes(term.batch)
    fixed = [_fake(mode, weights, None) for weights in _weights(model)]
    varying = {name: _fake(mode, tensor, axes.get(name)) for name, tensor in batch.items()}
    inputs = [*fixed, *varying.values()]
    graph, used = _trace(model, term, inputs)
    symbols = [varying[name].shape[axis] for name, axis in axes.items()]
    return _Traced(graph, inputs, used, sizes, symbols)


class FastProducts(CustomGraphPass):
    """Gives products of matrices the form in which CPUs do them fastest.

    Inductor accumulates a product into what it is added to, for which that is copied first; here it
    is added afterwards, by the next elementwise kernel. And oneDNN multiplies faster by weights
    whose columns are contiguous, not their rows.

    Several threads of inductor's add up rows in any order, one number at a time; here torch does,
    in one order.
    """

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        for node in graph.find_nodes(op="call_function", target=aten.addmm.default):
            self._split(graph, node)
        if torch.get_num_threads() > 1:
            for node in graph.find_nodes(op="call_function", target=aten.index_put.default):
                self._add_in_order(graph, node)
        turned: dict[Node, Node] = {}
        for node in graph.find_nodes(op="call_function", target=aten.mm.default):
            left, right = node.args
            if _fixed(right) and not _fixed(left) and right.meta["val"].is_contiguous():
                if right not in turned:
                    turned[right] = self._turn(graph, node, right)
                node.args = (left, turned[right])

    def uuid(self) -> str:
        """For inductor's cache."""
        return code_version()

    def _split(self, graph: Graph, node: Node) -> None:
        summand, left, right = node.args
        if node.kwargs:
            return
        with graph.inserting_before(node):
            product = _call(graph, aten.mm.default, left, right)
            total = _call(graph, aten.add.Tensor, product, summand)
        node.replace_all_uses_with(total)
        graph.erase_node(node)

    def _add_in_order(self, graph: Graph, node: Node) -> None:
        arguments: Any = node.args
        summand, indices, values, *accumulate = arguments
        if accumulate != [True] or len(indices) != 1:
            return
        with graph.inserting_before(node):
            total = _call(graph, aten.index_add.default, summand, 0, indices[0], values)
        node.replace_all_uses_with(total)
        graph.erase_node(node)

    def _turn(self, graph: Graph, before: Node, weights: Node) -> Node:
        with graph.inserting_before(before):
            turned = _call(graph, aten.permute.default, weights, [1, 0])
            copied = _call(graph, aten.clone.default, turned, memory_format=torch.contiguous_format)
            return _call(graph, aten.permute.default, copied, [1, 0])


def _fixed(node: Node) -> bool:
    """Whether all batches have the same shape here, as weights do."""
    return all(isinstance(size, int) for size in node.meta["val"].shape)


def _call(graph: Graph, target: Any, *args: Any, **options: Any) -> Node:
    """A node with the shape of what it gives."""
    node = graph.call_function(target, args, options)
    values = [each.meta["val"] if isinstance(each, Node) else each for each in args]
    node.meta["val"] = target(*values, **options)
    return node


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
    batch = list(_tensors(term.batch))
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


def _weights(model: Potential) -> list[Tensor]:
    """Parameters and buffers; the latter may be changed by a program."""
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in sorted(batch.to_dict().items())}


def _varying_axes(batch: Batch) -> dict[str, int]:
    """The axis of each tensor along which frames, atoms or edges lie one after the other."""
    return {
        name: batch.__cat_dim__(name, value) % value.dim()
        for name, value in sorted(batch.to_dict().items())
        if name not in CONSTANT
    }


def _varying_sizes(batch: Batch) -> list[int]:
    return [batch[name].shape[axis] for name, axis in _varying_axes(batch).items()]


def _classes(sizes: Sequence[int]) -> list[int]:
    """How many of the bounds each size exceeds."""
    return [bisect_left(BOUNDS, size) for size in sizes]


def _key(model: Potential, term: Term, precision: Precision) -> str:
    """Hash of all that the code depends on."""
    device = next(model.parameters()).device
    return digest(
        {
            "model": vars(model.settings),
            "training": model.training,
            "learning": [weights.requires_grad for weights in model.parameters()],
            "weights": [(list(w.shape), str(w.dtype)) for w in _weights(model)],
            "penalty": term.name,
            "precision": precision,
            "own": [own_version(type(model)), own_version(term.penalty)],
            "batch": [(name, str(value.dtype)) for name, value in _tensors(term.batch).items()],
            "sizes": _classes(_varying_sizes(term.batch)),
            "code": code_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cpu": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
    )[:20]


def _pack(program: Program) -> bytes:
    """The program as a zip file, with the kernels that inductor has just built for it."""
    packed = io.BytesIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr(LAYOUT, json.dumps(asdict(program.layout)))
        path = Path(folder) / CODE
        program.code.save(path=str(path), format="binary")
        archive.write(path, CODE)
        for kernel in sorted(Path(cache_dir()).rglob("*.so")):
            archive.write(kernel, kernel.relative_to(cache_dir()))
    return packed.getvalue()


def _unpack(content: bytes) -> Program:
    """The program of a zip file; kernels stay loaded when their files are gone."""
    with fresh_cache(), zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(cache_dir())
        path = Path(cache_dir()) / CODE
        layout = Layout(**json.loads(archive.read(LAYOUT)))
        return Program(CompiledArtifact.load(path=str(path), format="binary"), layout)
