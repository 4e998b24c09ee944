"""Process-wide settings for speed and reproducibility of training."""

from __future__ import annotations

import ctypes
import os

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""

MIN_ONEDNN_WIDTH = 96
"""Width from which oneDNN's matmul pays: it compiles a kernel for each shape in a millisecond, and
batches rarely have the same number of edges. At 32 a step takes 1.25 times as long, at 64 as long
as with torch's default, at 128 0.7 times."""


def configure_process(threads: int, device: str, *, deterministic: bool) -> None:
    """Set threads and determinism of this process, before its first use of a GPU.

    Args:
        threads: number of CPU threads.
        device: torch device.
        deterministic: use deterministic GPU kernels; those of the CPU always are. An operation
            without one raises a RuntimeError that names it.
    """
    torch.set_num_threads(threads)
    if deterministic and device == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(mode=True)


def configure_performance(device: torch.device, width: int) -> None:
    """Tune memory allocation and matmul of this process for a model of some width."""
    disable_malloc_trim()
    torch.set_float32_matmul_precision("highest")
    if device.type == "cpu" and width >= MIN_ONEDNN_WIDTH:
        enable_onednn_matmul()


def disable_malloc_trim() -> None:
    """Let glibc keep freed memory for the next step instead of returning it to the system.

    A tensor of more than 32 MB is otherwise mapped, zeroed and unmapped at each use, which takes
    three quarters of a step with 10 frames of 774 atoms.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def enable_onednn_matmul() -> None:
    """Use oneDNN for float32 matmul on the CPU if it keeps float32 precision there.

    On AMD it is twice as fast as torch's default. Torch enables it only together with bfloat16,
    which some CPUs then use; so the default stays unless a test product is exact.

    oneDNN compiles up to 2 MB of code per shape and caches 1024 of them, twice. Batches rarely
    have the same number of edges, so the cache is cut to the shapes of the last steps.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "64")
    left = torch.linspace(-1, 1, 2**14).view(64, 256)
    right = torch.linspace(0, 1, 2**14).view(256, 64)
    torch.set_float32_matmul_precision("medium")
    error = (left @ right).double() - left.double() @ right.double()
    if error.abs().max() > 1e-3:
        torch.set_float32_matmul_precision("highest")
