"""Precision of matrix products in training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from study.core.errors import UserError

Precision = Literal["float32", "tf32", "bf16"]


def matmul_precision(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Context in which layers and their derivatives multiply in reduced precision.

    Weights, sums over edges, and everything but matrix products stay float32.

    Args:
        precision: float32; tf32, with which GPUs round the factors of all matrix products to 10
            bits; bf16, which rounds factors and products of linear layers to 7 bits.
        device: the device that computes.

    Raises:
        UserError: if the device does not support it.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError("`precision: tf32` needs a GPU; take bf16, or leave it out")
    contexts: dict[Precision, Callable[[], AbstractContextManager[object]]] = {
        "float32": nullcontext,
        "tf32": _tensor_float,
        "bf16": _BFloat16,
    }
    return contexts[precision]()


@contextmanager
def _tensor_float() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _BFloat16(TorchFunctionMode):
    """Runs linear layers in bfloat16; autocast would also round energies and their sums."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Dispatch a function, linear layers to bfloat16."""
        if func is functional.linear:
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = (values.bfloat16() @ weight.bfloat16().t()).to(values.dtype)
    return product if bias is None else product + bias
