"""Provenance of results: code version, packages, and hardware."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from study.core.hashing import OWN_FILES

PACKAGES = (
    "torch",
    "torch-geometric",
    "numpy",
    "openmm",
    "vesin",
    "scipy",
    "ase",
    "ray",
    "optuna",
    "mlflow",
    "pandas",
    "pyarrow",
)


DECISIVE = ("torch", "torch-geometric", "numpy", "scipy", "vesin", "openmm", "ase")
"""Packages whose version can change a number."""

VARIABLES = re.compile(
    "(OMP|MKL|OPENBLAS|BLIS|KMP|GOMP)_|(ONEDNN|DNNL|TORCHINDUCTOR|PYTORCH|CUBLAS|CUDNN|OPENMM)_"
    "|ATEN_CPU_CAPABILITY$|TORCH_(ALLOW|USE|COMPILE|NUM|BLAS|CUDNN)|NVIDIA_TF32_OVERRIDE$"
    "|GLIBC_TUNABLES$|LD_PRELOAD$"
)
"""Environment variables that can change a number: threads, kernels and precision."""

PLACES = re.compile("_(DIR|PATH|HOME|CAPACITY)$")
"""Environment variables of those that only say where something lies, or how much is kept."""

CPUINFO = Path("/proc/cpuinfo")
"""What Linux says of the CPU."""


def cores() -> int:
    """Number of CPU cores that this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


@cache
def gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that torch can use, determined without importing it."""
    if version("torch").endswith("+cpu"):
        return ()
    names = nvidia_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return names
    indices = [index for index in visible.split(",") if index.strip() not in ("", "-1")]
    return names[: len(indices)]


@cache
def nvidia_gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs of this machine, whether torch can use them or not."""
    return tuple(_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines())


def gpu_use() -> str:
    """Mean utilization and memory in use of all visible GPUs, for display; empty without GPUs."""
    if not gpus():
        return ""
    query = "--query-gpu=utilization.gpu,memory.used,memory.total"
    lines = _output("nvidia-smi", query, "--format=csv,noheader,nounits").splitlines()
    try:
        loads, used, total = zip(*(map(float, line.split(",")) for line in lines), strict=True)
    except ValueError:
        return ""
    return f"GPU {sum(loads) / len(loads):.0f} %, {sum(used) / 1024:.0f}/{sum(total) / 1024:.0f} GB"


@cache
def hardware() -> dict[str, Any]:
    """CPU, memory, GPUs, system and Python of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "gpus": list(gpus()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


@cache
def packages() -> dict[str, str]:
    """Installed versions of the packages that produce or record results."""
    return {name: installed(name) for name in PACKAGES}


def installed(name: str) -> str:
    """Version of a package, or "missing"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def environment(
    cpus: int, gpus: float = 0, workers: int = 1, *, deterministic: bool = False
) -> dict[str, str]:
    """Return what can change a number besides settings, data and code, which name each job.

    Args:
        cpus: threads of a worker.
        gpus: of a worker.
        workers: that share each training step of a trial.
        deterministic: whether its kernels are.
    """
    devices = ", ".join(hardware()["gpus"]) if gpus else ""
    return {
        "processor": hardware()["processor"],
        "GPUs": devices or "none",
        "Python": platform.python_version(),
        "threads": str(cpus),
        "workers": str(workers),
        "deterministic": str(deterministic),
        **{name: packages()[name] for name in DECISIVE},
        **{name: value for name, value in sorted(os.environ.items()) if _is_decisive(name)},
        **{f"file {path}": sha256 for path, sha256 in sorted(OWN_FILES.items())},
    }


def _is_decisive(variable: str) -> bool:
    return bool(VARIABLES.match(variable)) and not PLACES.search(variable)


@cache
def git_commit() -> str:
    """Git commit of this package, with "+changes" if there are uncommitted ones; or "unknown"."""
    here = str(Path(__file__).parent)
    commit = _output("git", "-C", here, "rev-parse", "HEAD")
    if not commit:
        return "unknown"
    changed = _output("git", "-C", here, "status", "--porcelain", "--untracked-files=no")
    return commit + "+changes" * bool(changed)


def multiplies_bfloat16() -> bool:
    """Whether this CPU has a unit for products in bfloat16; true where nothing tells."""
    flags = _cpuinfo("flags", "Features")
    return not flags or bool({"avx512_bf16", "amx_bf16", "bf16", "avx10_2"} & set(flags.split()))


def _processor() -> str:
    """Name of the CPU; on Linux only /proc/cpuinfo has it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(*names: str) -> str:
    """First value of one of these fields in /proc/cpuinfo; empty where there is none."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return next((value.strip() for name, value in pairs if name.strip() in names), "")


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
