"""What the products of matrices in training steps are rounded to."""

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
    """Within this context, layers and their derivatives multiply in some precision.

    Weights, sums over edges, and all that is no product of matrices stay float32.

    Args:
        precision: float32; tf32, in which GPUs round the factors of any product of matrices to 10
            bits; bf16, in which factors and products of linear layers are rounded to 7 bits.
        device: that computes.

    Raises:
        UserError: if the device cannot do it.
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
    """Torch's autocast would also round what follows a layer, energies and their sums among it."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Do what is to be done, a linear layer in its own way."""
        if func is functional.linear:
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = (values.bfloat16() @ weight.bfloat16().t()).to(values.dtype)
    return product if bias is None else product + bias
