"""Rounded products in training steps: what is rounded, and what stays."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from study.core.errors import UserError
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.models.potential import Potential
from study.tasks.config import EnergyForces as EnergyForcesSettings
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.training import program_cache
from study.training.config import Stage
from study.training.gradients import Engine
from study.training.loop import fit
from study.training.precision import Precision, matmul_precision

CPU = torch.device("cpu")
PRECISIONS = get_args(Precision)
HALF_UNIT = 2.0**-8
"""Relative error of rounding to 7 bits after the leading one."""


def rounded(values: Tensor) -> Tensor:
    """To the nearest number of 8 binary digits, ties to even, by hand."""
    mantissa, exponent = torch.frexp(values.double())
    return torch.ldexp(torch.round(mantissa * 2**8) / 2**8, exponent)


def layer() -> tuple[Tensor, Tensor, Tensor]:
    """Values, weights and bias."""
    shapes = {"values": (50, 24), "weight": (16, 24), "bias": (16,)}
    values, weight, bias = (
        torch.randn(shape, generator=seeded(0, name)) for name, shape in shapes.items()
    )
    return values, weight, bias


def test_factors_and_products_are_rounded_and_the_bias_is_not() -> None:
    values, weight, bias = layer()
    with matmul_precision("bf16", CPU):
        result = functional.linear(values, weight, bias)
    exact = rounded(values) @ rounded(weight).T
    assert result.dtype == torch.float32
    torch.testing.assert_close((result - bias).double(), exact, rtol=1.01 * HALF_UNIT, atol=1e-5)
    # Rounded in any case: no product of these numbers has so few digits by chance.
    assert (result - functional.linear(values, weight, bias)).abs().max() > 1e-3


def test_nothing_else_is_rounded_and_nothing_outside() -> None:
    values, weight, bias = layer()
    exact = functional.linear(values, weight, bias)
    others = functional.silu(values), values.T @ values
    with matmul_precision("bf16", CPU):
        assert torch.equal(functional.silu(values), others[0])
        assert torch.equal(values.T @ values, others[1])
    assert torch.equal(functional.linear(values, weight, bias), exact)
    with matmul_precision("float32", CPU):
        assert torch.equal(functional.linear(values, weight, bias), exact)


def test_tensor_float_needs_a_gpu() -> None:
    with pytest.raises(UserError, match=r"tf32.*GPU.*bf16"):
        matmul_precision("tf32", CPU)


def test_tensor_float_lasts_as_long_as_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    precisions: list[str] = []
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    monkeypatch.setattr(torch, "set_float32_matmul_precision", precisions.append)
    with matmul_precision("tf32", torch.device("cuda")):
        assert precisions == ["high"]
    assert precisions == ["high", "highest"]


def test_code_of_another_precision_is_other_code(mixed_water: Frames) -> None:
    model, task = water_model(mixed_water)
    (term,) = task.terms(torch.arange(4), seeded(3))
    assert len({program_cache._key(model, term, each) for each in PRECISIONS}) == len(PRECISIONS)


def water_model(frames: Frames, layers: int = 2) -> tuple[Potential, EnergyForces]:
    graphs = GraphSet.build(frames, 3.4)
    settings = EnergyForcesSettings(name="energy_forces")
    statistics = LabelStatistics.fit(graphs, torch.arange(len(frames)))
    model = build_model(EGNN(name="egnn", hidden=16, layers=layers, basis=4), seed=0)
    statistics.apply(model, settings)
    return model.train(), EnergyForces(settings, graphs, statistics)


def gradient(frames: Frames, **options: object) -> Tensor:
    # One layer, which compiles in half the time of two.
    model, task = water_model(frames, layers=1)
    Engine(model, **options).backward(task.terms(torch.arange(4), seeded(3)))  # type: ignore[arg-type]
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_gradients_of_forces_are_near_the_exact_ones_eager_and_compiled(
    mixed_water: Frames,
) -> None:
    exact = gradient(mixed_water)
    eager = gradient(mixed_water, precision="bf16")
    compiled = gradient(mixed_water, precision="bf16", compiled=True)

    def apart(one: Tensor, other: Tensor) -> float:
        return float((one - other).norm() / exact.norm())

    assert 1e-4 < apart(eager, exact) < 5e-2
    assert 1e-4 < apart(compiled, exact) < 5e-2
    # Fused code rounds at other places now and then; autograd's own errors are of that size too.
    assert apart(eager, compiled) < apart(eager, exact)


def test_training_rounds_its_steps_and_validates_exactly(mixed_water: Frames) -> None:
    def trained(precision: str) -> tuple[float, float]:
        model, task = water_model(mixed_water)
        fields = {"task": task.settings, "epochs": 2, "batch_size": 2, "precision": precision}
        everything = torch.arange(len(mixed_water))
        history = list(fit(model, task, Stage.model_validate(fields), everything, everything, 0))
        model.eval()
        # Selected are the weights of the best epoch.
        return min(m["val_force_rmse"] for m in history), task.errors(model, [everything])[
            "force_rmse"
        ]

    exact, rounded_error = trained("float32"), trained("bf16")
    assert rounded_error[0] == pytest.approx(rounded_error[1], rel=1e-6)
    assert rounded_error[0] != exact[0]
    assert rounded_error[0] == pytest.approx(exact[0], rel=0.05)
