"""Lets Inductor write and build a program for an NVIDIA GPU on a machine that has none.

Inductor asks torch for the GPU's properties and Triton for its architecture; both are told of an
H100. Triton brings NVIDIA's assembler, so every kernel is built to machine code; only loading and
running it is left out. Torch and Triton have no public interface for this, so what is replaced here
is private, and stands in this one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch._inductor import config as inductor
from torch._inductor.codegen.wrapper import PythonWrapperCodegen
from torch._inductor.fx_passes import joint_graph, post_grad
from torch._inductor.runtime import triton_heuristics
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node
from torch.utils.cpp_extension import load_inline

DEVICE = torch.device("cuda", 0)
CAPABILITY = (9, 0)
PROPERTIES = SimpleNamespace(
    name="NVIDIA H100",
    major=CAPABILITY[0],
    minor=CAPABILITY[1],
    multi_processor_count=132,
    total_memory=80 * 2**30,
    warp_size=32,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    shared_memory_per_multiprocessor=233472,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    L2_cache_size=50 * 2**20,
    gcnArchName="",
)

GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
static c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> guard;
void install() {
    auto& slot = c10::impl::device_guard_impl_registry[size_t(c10::DeviceType::CUDA)];
    slot.store(&guard);
}
"""
"""Makes switching to the GPU do nothing; a torch without CUDA has nothing there and raises."""


def on_device(graph: GraphModule, inputs: list[Any]) -> None:
    """Say of all tensors of a traced graph, in place, that they are on the GPU."""
    for node in graph.graph.nodes:
        for value in node.meta.values():
            for each in value if isinstance(value, tuple | list) else [value]:
                _move(each)
        _rename_devices(node)
    for each in inputs:
        _move(each)
    graph.recompile()


def _move(value: Any) -> None:
    if isinstance(value, FakeTensor):
        value.fake_device = DEVICE


def _rename_devices(node: Node) -> None:
    """Let an operation that makes a tensor on the CPU make it on the GPU."""
    node.kwargs = {
        name: DEVICE if isinstance(value, torch.device) else value
        for name, value in node.kwargs.items()
    }


@contextmanager
def pretended() -> Iterator[None]:
    """Let Inductor find a GPU for which it builds, but does not run."""
    from torch._inductor.runtime import triton_helpers
    from triton.runtime import driver

    _guard().install()
    with ExitStack() as stack:
        for owner, names in _replaced().items():
            for name, value in names.items():
                stack.enter_context(mock.patch.object(owner, name, value, create=True))
        for passes in (joint_graph, post_grad):
            on_cpu = mock.patch.object(passes, "lazy_init", _on_cpu(passes.lazy_init))
            stack.enter_context(on_cpu)
        stack.enter_context(mock.patch.object(triton_helpers, "set_driver_to_gpu", _nothing))
        # Folding constants computes on the device.
        stack.enter_context(inductor.patch({"joint_graph_constant_folding": False}))
        driver.set_active(_Driver())
        yield


@cache
def _guard() -> Any:
    return load_inline("pretended_cuda_guard", GUARD, functions=["install"])  # type: ignore[no-untyped-call]


def _replaced() -> dict[Any, dict[str, Any]]:
    """What asks for a GPU or runs on it, by module or class, with what takes its place."""
    return {
        torch.cuda: {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "get_device_capability": lambda *_: CAPABILITY,
            "get_device_properties": lambda *_: PROPERTIES,
            "_get_device_properties": lambda *_: PROPERTIES,
            "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
            "set_rng_state": _nothing,
            "synchronize": _nothing,
            "_lazy_init": _nothing,
            "_exchange_device": lambda *_: 0,
            "_maybe_exchange_device": lambda *_: 0,
        },
        torch.version: {"cuda": "12.8"},
        torch._C: {"_cuda_getCurrentRawStream": lambda *_: 0},
        PythonWrapperCodegen: {"generate_and_run_autotune_block": _nothing},
        triton_heuristics.CachingAutotuner: {"precompile": _build_only},
    }


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _build_only(kernel: Any, *_: Any, **__: Any) -> None:
    """Build a kernel in each of its configurations, without loading it."""
    kernel._precompile_worker()


def _on_cpu(initialize: Any) -> Any:
    """Let Inductor trace the patterns that it looks for on the CPU: it makes tensors for them."""
    return lambda *_: initialize(torch.device("cpu"))


class _Driver:
    """What Triton asks of the driver of a GPU while it builds."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        major, minor = CAPABILITY
        return GPUTarget("cuda", 10 * major + minor, PROPERTIES.warp_size)

    def get_current_device(self) -> int:
        return DEVICE.index

    def get_active_torch_device(self) -> torch.device:
        return DEVICE
