"""Settings of the whole process that make training faster or repeatable."""

from __future__ import annotations

import ctypes
import os

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of glibc's `mallopt`."""
WIDE = 96
"""Width from which oneDNN's products pay: making its code for a shape takes a millisecond, and
batches rarely have the same number of edges. At 32 a step takes 1.25 times as long, at 64 as long
as with torch's default, at 128 0.7 times."""


def configure_process(threads: int, device: str, *, deterministic: bool) -> None:
    """Prepare this process for training, before its first use of a GPU.

    Args:
        threads: of the CPU.
        device: torch device.
        deterministic: let a GPU add up in the same order every time, as a CPU does anyway. An
            operation for which torch has no such order raises a RuntimeError that names it.
    """
    torch.set_num_threads(threads)
    if deterministic and device == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(mode=True)


def configure_performance(device: torch.device, width: int) -> None:
    """Make this process fit for training a model with features of some width on a device."""
    disable_malloc_trim()
    torch.set_float32_matmul_precision("highest")
    if device.type == "cpu" and width >= WIDE:
        enable_onednn_matmul()


def disable_malloc_trim() -> None:
    """Let glibc keep what is freed, for the next step, instead of returning it to the system.

    A tensor of more than 32 MB is otherwise mapped, filled with zeros and unmapped at every use:
    three quarters of the time of a step with 10 frames of 774 atoms.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def enable_onednn_matmul() -> None:
    """Let oneDNN multiply float32 matrices on the CPU, if it keeps their precision there.

    On AMD it is twice as fast as torch's default. Torch allows it only together with bfloat16,
    which some CPUs then do use; so the default stays unless a product comes out right.

    For every shape it makes code of up to 2 MB and keeps 1024 of them, twice. Batches rarely have
    the same number of edges, so only those of the last steps are kept here.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "64")
    left = torch.linspace(-1, 1, 2**14).view(64, 256)
    right = torch.linspace(0, 1, 2**14).view(256, 64)
    torch.set_float32_matmul_precision("medium")
    error = (left @ right).double() - left.double() @ right.double()
    if error.abs().max() > 1e-3:
        torch.set_float32_matmul_precision("highest")
