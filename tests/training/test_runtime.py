"""Process-wide settings keep results and save system calls."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from study.core.seeding import seeded
from study.training.runtime import (
    MIN_ONEDNN_WIDTH,
    configure_performance,
    configure_process,
    enable_onednn_matmul,
)


@pytest.fixture
def restored_precision() -> Iterator[Callable[[], str]]:
    """Leaves torch's setting as it was."""
    before = torch.get_float32_matmul_precision()
    yield torch.get_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


def test_fast_products_are_precise(restored_precision: Callable[[], str]) -> None:
    del restored_precision
    enable_onednn_matmul()
    left, right = (torch.randn(300, 128, generator=seeded(0, side)) for side in "ab")
    error = (left @ right.T).double() - left.double() @ right.double().T
    assert error.abs().max() < 1e-4


def test_products_that_lose_precision_are_not_made_fast(
    restored_precision: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    product = Tensor.__matmul__

    def coarse(left: Tensor, right: Tensor) -> Tensor:
        if left.dtype == torch.float64:
            return product(left, right)
        return product(left.bfloat16(), right.bfloat16()).float()

    monkeypatch.setattr(Tensor, "__matmul__", coarse)
    enable_onednn_matmul()
    assert restored_precision() == "highest"


@pytest.mark.parametrize(
    ("width", "precision"), [(MIN_ONEDNN_WIDTH - 1, "highest"), (MIN_ONEDNN_WIDTH, "medium")]
)
def test_only_wide_models_use_fast_products(
    width: int, precision: str, restored_precision: Callable[[], str]
) -> None:
    configure_performance(torch.device("cpu"), width)
    # A CPU on which they are not precise never uses them.
    assert restored_precision() in (precision, "highest")
    configure_performance(torch.device("cpu"), 1)
    assert restored_precision() == "highest"


FAULTS = """
import resource, sys, torch
from study.training.runtime import disable_malloc_trim
if sys.argv[1] == "kept":
    disable_malloc_trim()
def use():
    return torch.ones(50_000_000).sum()
# Small tensors find their places first.
for _ in range(40):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_large_tensors_reuse_freed_memory() -> None:
    def page_faults(memory: str) -> int:
        command = [sys.executable, "-c", FAULTS, memory]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    pages = 5 * 4 * 50_000_000 // resource.getpagesize()
    # Transparent huge pages fault once per 2 MB.
    assert page_faults("returned") > pages // 600
    assert page_faults("kept") < pages // 6000


SHAPES = """
import torch
from study.training.runtime import MIN_ONEDNN_WIDTH, enable_onednn_matmul, configure_performance
enable_onednn_matmul()
torch.set_num_threads(1)
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = memory()
for rows in range(2000, 2400):
    torch.ones(rows, 128) @ torch.ones(128, 128)
print(memory() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ever_new_shapes_do_not_fill_the_memory() -> None:
    command = [sys.executable, "-c", SHAPES]
    grown = int(subprocess.run(command, capture_output=True, check=True).stdout)
    assert grown < 250 * 2**20


@pytest.mark.parametrize(
    ("device", "asked", "ordered"),
    [("cpu", True, False), ("cuda", False, False), ("cuda", True, True)],
)
def test_only_gpus_for_which_it_is_asked_add_up_in_order(
    device: str, monkeypatch: pytest.MonkeyPatch, *, asked: bool, ordered: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    try:
        configure_process(torch.get_num_threads(), device, deterministic=asked)
        assert torch.are_deterministic_algorithms_enabled() == ordered
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (":4096:8" if ordered else "")
    finally:
        torch.use_deterministic_algorithms(mode=False)
