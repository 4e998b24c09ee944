"""A pretended accelerator: tensors that say they are elsewhere, with their numbers on the CPU.

As on a GPU, an operation with tensors of both devices is an error, a generator must be the
device's, and reading a value waits for all that was launched before. `Pretended` counts what a GPU
would pay for: operations launched, copies from and to the CPU, and waits. It stands on the
PrivateUse1 device that torch keeps for others' backends; `torch.utils.backend_registration`
registers one that is written in Python (an experimental interface).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)

FREE = {"detach", "alias", "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice"}
FREE |= {"select", "unsqueeze", "squeeze", "split", "split_with_sizes", "unbind", "as_strided"}
FREE |= {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "unfold"}
FREE |= {"diagonal", "chunk", "narrow", "reshape", "_reshape_alias", "movedim", "lift_fresh"}
"""Operations that launch nothing: views, and memory without contents."""
SIZED_BY_VALUES = {"nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive"}
"""Operations whose result has a size that depends on values, which the CPU must wait for."""

INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class OnDevice(Tensor):
    """A tensor that says it is on `DEVICE`.

    Args:
        inner: its numbers, on the CPU.
    """

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        """Wrap a tensor of the CPU."""
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        """Show what it holds."""
        return f"OnDevice({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse what no `Pretended` watches."""
        raise RuntimeError(f"{func} outside `with Pretended()`")


class Pretended(TorchDispatchMode):
    """Runs what is done on `DEVICE`, and counts it.

    Attributes:
        launched: operations by name.
        copies: copies by direction, "to device" and "to CPU".
        waits: operations by name after which the CPU had to wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launched: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._generators: set[int] = set()

    def reset(self) -> None:
        """Count from zero."""
        for counter in (self.launched, self.copies, self.waits):
            counter.clear()

    @contextmanager
    def running(self) -> Iterator[Pretended]:
        """Make this the device of all that is done inside."""
        generators = mock.patch.object(torch, "Generator", self._generator)
        # torch refuses it for subclasses; on a device it is a copy, for which the CPU waits.
        lists = mock.patch.object(OnDevice, "tolist", lambda each: each.cpu().tolist())
        # torch fills a new tensor from a list with modes switched off.
        tensors = mock.patch.object(torch, "tensor", _tensor)
        with generators, lists, tensors, self:
            yield self

    def _generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        made = _GENERATOR()
        # An address that was another one's before may be among them.
        self._generators.discard(made._cdata)
        if torch.device(device).type == NAME:
            self._generators.add(made._cdata)
        return made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation where its tensors are."""
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        leaves = pytree.tree_leaves((args, kwargs))
        held = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
        target = kwargs.get("device")
        wanted = torch.device(target).type == NAME if target is not None else bool(held)
        if not held and not wanted:
            return func(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            return self._copy(func, args, kwargs, wanted=wanted)
        self._require_one_place(name, leaves)
        self._count(name, args)
        return self._run(func, args, kwargs, to_device=True)

    def _copy(self, func: Any, args: Any, kwargs: Any, *, wanted: bool) -> Any:
        name = func.overloadpacket.__name__
        source = args[1] if name == "copy_" else args[0]
        to_device = isinstance(args[0], OnDevice) if name == "copy_" else wanted
        if isinstance(source, OnDevice) and to_device:
            self.launched[name] += 1
        elif to_device:
            self.copies["to device"] += 1
        else:
            self.copies["to CPU"] += 1
            self.waits["copy to CPU"] += 1
        return self._run(func, args, kwargs, to_device=to_device)

    def _require_one_place(self, name: str, leaves: list[Any]) -> None:
        # Single numbers are taken from either side; indices are copied, while the CPU waits.
        others = [
            leaf
            for leaf in leaves
            if isinstance(leaf, Tensor) and not isinstance(leaf, OnDevice) and leaf.dim()
        ]
        if others and name in INDEXING:
            self.copies["to device"] += len(others)
            self.waits["index of the CPU"] += len(others)
        elif others:
            raise RuntimeError(
                f"{name}: tensors of {tuple(others[0].shape)} on the CPU and others on {DEVICE}"
            )
        for leaf in leaves:
            if isinstance(leaf, _GENERATOR) and leaf._cdata not in self._generators:
                raise RuntimeError(f"{name}: a generator of the CPU for tensors on {DEVICE}")

    def _count(self, name: str, args: Any) -> None:
        if name in ("_local_scalar_dense", "equal", "item", "is_nonzero"):
            self.waits[name] += 1
            return
        if name not in FREE:
            self.launched[name] += 1
        by_mask = name in INDEXING and any(
            each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        )
        if name in SIZED_BY_VALUES or by_mask:
            self.waits[name] += 1

    def _run(self, func: Callable[..., Any], args: Any, kwargs: Any, *, to_device: bool) -> Any:
        inner_args, inner_kwargs = pytree.tree_map_only(
            OnDevice, lambda leaf: leaf.inner, (args, kwargs)
        )
        if inner_kwargs.get("device") is not None:
            inner_kwargs["device"] = torch.device("cpu")
        result = func(*inner_args, **inner_kwargs)
        if not to_device:
            return result
        wrapped = pytree.tree_map_only(Tensor, OnDevice, result)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _tensor(data: object, *, device: torch.device | str | None = None, **options: Any) -> Tensor:
    """Make a tensor on the CPU and copy it, as `torch.tensor` does."""
    made = _TENSOR(data, **options)
    return made if device is None else made.to(device)


_GENERATOR, _TENSOR = torch.Generator, torch.tensor
