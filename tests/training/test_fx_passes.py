"""Rewritten graphs: the same values, in faster or deterministic operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from study.core.seeding import seeded
from study.training import compiler as training_compiler
from study.training import fx_passes

aten = torch.ops.aten


def test_products_take_their_fastest_form_and_keep_their_values() -> None:
    shapes = ((7, 4), (4, 3), (3,))
    inputs = [torch.randn(shape, generator=seeded(0), dtype=torch.float64) for shape in shapes]

    def act(rows: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias, rows, weights) @ weights.T + rows @ weights @ weights.T

    mode = FakeTensorMode(shape_env=ShapeEnv())
    axes = (0, None, None)
    fakes = [
        training_compiler._fake(mode, value, axis) for value, axis in zip(inputs, axes, strict=True)
    ]
    traced = make_fx(act, tracing_mode="symbolic")(*fakes)
    fx_passes.MatmulLayoutPass()(traced.graph)
    traced.recompile()
    torch.testing.assert_close(traced(*inputs), act(*inputs))
    assert not traced.graph.find_nodes(op="call_function", target=aten.addmm.default)
    products = traced.graph.find_nodes(op="call_function", target=aten.mm.default)
    assert len(products) == 4
    # Columns of the right factor are contiguous in all of them.
    assert all(product.args[1].meta["val"].stride()[0] == 1 for product in products)


@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_add_up_rows_in_order_and_to_the_same(threads: int) -> None:
    places, values = torch.tensor([0, 2, 2, 1, 0]), torch.randn(5, 4, generator=seeded(0))
    inputs = torch.ones(3, 4), places, values

    def act(sums: Tensor, places: Tensor, values: Tensor) -> Tensor:
        return sums.index_put((places,), values, accumulate=True)

    mode = FakeTensorMode(shape_env=ShapeEnv())
    fakes = [training_compiler._fake(mode, each, None) for each in inputs]
    traced = make_fx(act, tracing_mode="symbolic")(*fakes)
    torch.set_num_threads(threads)
    fx_passes.MatmulLayoutPass()(traced.graph)
    torch.set_num_threads(1)
    traced.recompile()
    by_hand = torch.stack([1 + values[places == row].sum(dim=0) for row in range(3)])
    torch.testing.assert_close(traced(*inputs), by_hand)
    counts = [
        len(traced.graph.find_nodes(op="call_function", target=target))
        for target in (aten.index_put.default, aten.index_add.default)
    ]
    assert counts == ([1, 0] if threads == 1 else [0, 1])
