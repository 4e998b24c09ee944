"""FX passes on the graphs that Inductor compiles."""

from __future__ import annotations

from typing import Any

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx import Graph, Node

from study.core.hashing import code_version

aten = torch.ops.aten


class MatmulLayoutPass(CustomGraphPass):
    """Rewrites matmuls and scatter-adds into the forms that are fastest and deterministic on CPUs.

    Inductor accumulates `addmm` into a copy of the summand; here the sum is left to the next
    elementwise kernel. oneDNN multiplies faster by weights whose columns are contiguous.

    Inductor's threads scatter-add rows in an undefined order, with atomic operations; here
    `index_add` sums them in one order.
    """

    def __call__(self, graph: Graph) -> None:
        """Rewrite the graph in place."""
        for node in graph.find_nodes(op="call_function", target=aten.addmm.default):
            self._split_addmm(graph, node)
        if torch.get_num_threads() > 1:
            for node in graph.find_nodes(op="call_function", target=aten.index_put.default):
                self._use_index_add(graph, node)
        transposed: dict[Node, Node] = {}
        for node in graph.find_nodes(op="call_function", target=aten.mm.default):
            left, right = node.args
            if (
                _has_static_shape(right)
                and not _has_static_shape(left)
                and right.meta["val"].is_contiguous()
            ):
                if right not in transposed:
                    transposed[right] = self._transpose_weights(graph, node, right)
                node.args = (left, transposed[right])

    def uuid(self) -> str:
        """Key of this pass in Inductor's cache."""
        return code_version()

    def _split_addmm(self, graph: Graph, node: Node) -> None:
        summand, left, right = node.args
        if node.kwargs:
            return
        with graph.inserting_before(node):
            product = _call(graph, aten.mm.default, left, right)
            total = _call(graph, aten.add.Tensor, product, summand)
        node.replace_all_uses_with(total)
        graph.erase_node(node)

    def _use_index_add(self, graph: Graph, node: Node) -> None:
        arguments: Any = node.args
        summand, indices, values, *accumulate = arguments
        if accumulate != [True] or len(indices) != 1:
            return
        with graph.inserting_before(node):
            total = _call(graph, aten.index_add.default, summand, 0, indices[0], values)
        node.replace_all_uses_with(total)
        graph.erase_node(node)

    def _transpose_weights(self, graph: Graph, before: Node, weights: Node) -> Node:
        with graph.inserting_before(before):
            transposed = _call(graph, aten.permute.default, weights, [1, 0])
            copied = _call(
                graph, aten.clone.default, transposed, memory_format=torch.contiguous_format
            )
            return _call(graph, aten.permute.default, copied, [1, 0])


def _has_static_shape(node: Node) -> bool:
    """Whether the shape is the same for all batches, as that of weights."""
    return all(isinstance(size, int) for size in node.meta["val"].shape)


def _call(graph: Graph, target: Any, *args: Any, **options: Any) -> Node:
    """Add a node with the metadata of its output."""
    node = graph.call_function(target, args, options)
    values = [each.meta["val"] if isinstance(each, Node) else each for each in args]
    node.meta["val"] = target(*values, **options)
    return node
