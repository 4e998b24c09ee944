"""Passes over traced graphs before inductor compiles them."""

from __future__ import annotations

from typing import Any

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx import Graph, Node

from study.core.hashing import code_version

aten = torch.ops.aten


class MatmulLayoutPass(CustomGraphPass):
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
