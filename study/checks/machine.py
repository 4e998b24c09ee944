"""Checks of this machine: Python, packages, CPU, GPU, memory, network."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from study.checks.finding import GIB, Environment, Finding, ok
from study.core import provenance
from study.core.paths import socket_dirs

PACKAGE = "pretraining-study"
FIRST_STEPS = {
    "torch": "import torch, numpy, vesin; a = torch.ones(2, 2); assert (a @ a).sum() == 8; "
    "vesin.NeighborList(cutoff=1.0, full_list=True).compute(points=numpy.zeros((1, 3)), "
    "box=3 * numpy.eye(3), periodic=True, quantities='i')",
    "openmm": "import openmm; assert openmm.Platform.getNumPlatforms() > 1",
    "ray": "import ray",
}
"""First use of packages with compiled libraries, run in a process of its own."""


def _python(_environment: Environment) -> Finding:
    return ok(f"{platform.python_version()} in {sys.prefix}")


def _system(_environment: Environment) -> Finding:
    system = f"{platform.system()} {platform.machine()}"
    if platform.system() not in ("Linux", "Darwin"):
        return Finding("failed", system, "use Linux or macOS, or WSL on Windows")
    return ok(system)


def _packages(_environment: Environment) -> Finding:
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in requires(PACKAGE) or []]
    except PackageNotFoundError:
        return Finding("failed", f"{PACKAGE} is not installed", "pip install -e . in its folder")
    wrong = []
    for requirement in needed:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        return Finding("failed", "; ".join(wrong), "pip install -e . in the package's folder")
    return ok(f"{len(needed)} requirements met")


def _import_check(name: str) -> Callable[[Environment], Finding]:
    def check(_environment: Environment) -> Finding:
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", FIRST_STEPS[name]],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Finding("warning", "took more than a minute", "install on a local disk")
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return Finding("failed", last[:200], f"pip install --force-reinstall {name}")
        return ok(version(name))

    return check


def _gpu(_environment: Environment) -> Finding:
    """Find a GPU that the machine has but torch cannot use."""
    names = provenance.nvidia_gpus()
    built = version("torch").partition("+")[2] or "as from PyPI"
    if not names:
        return ok("no GPU found; studies run on the CPU, by default in the `quick` profile")
    if built == "cpu":
        return Finding(
            "warning",
            f"{names[0]}, but torch {version('torch')} is built without CUDA",
            "pip install --force-reinstall torch, in the build that pytorch.org names for CUDA",
        )
    if not provenance.gpus():
        return Finding(
            "warning",
            f"{len(names)} hidden by CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']!r}",
            "unset CUDA_VISIBLE_DEVICES, or name the GPUs to use",
        )
    return ok(f"{len(provenance.gpus())} × {names[0]}")


def _cores(_environment: Environment) -> Finding:
    available = provenance.cores()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > available:
        return Finding(
            "warning",
            f"{available}, but OMP_NUM_THREADS={threads}",
            f"export OMP_NUM_THREADS={available}, or unset it",
        )
    return ok(str(available))


def _memory(_environment: Environment) -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return ok(f"{provenance.hardware()['memory_gb']} GB in total")
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    free = values["MemAvailable"] / GIB
    needed = 1.5 + 1.0 * provenance.cores()
    if free < needed:
        return Finding(
            "warning",
            f"{free:.1f} GB free; Ray and one trial per core need about {needed:.1f}",
            "end other programs, or run fewer trials at once: --max-concurrent 1",
        )
    return ok(f"{free:.1f} GB free")


def _shared_memory(_environment: Environment) -> Finding:
    path = Path("/dev/shm")
    if not path.is_dir():
        return ok("not used on this system")
    free = shutil.disk_usage(path).free / GIB
    if free < 0.3:
        return Finding(
            "warning",
            f"{free:.2f} GB free in {path}; Ray's object store takes 0.2",
            "start the container with --shm-size=1g, or empty the folder",
        )
    return ok(f"{free:.1f} GB free")


def _open_files(_environment: Environment) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 < soft < 1024:
        return Finding("warning", f"at most {soft}", f"ulimit -n {min(hard, 65536)}")
    return ok(f"at most {soft}")


def _temporary(_environment: Environment) -> Finding:
    folder, short = tempfile.gettempdir(), socket_dirs()
    if not short:
        return Finding("failed", f"{folder} is too long for Ray's sockets", "export TMPDIR=/tmp")
    free = shutil.disk_usage(short[0]).free / GIB
    if free < 1:
        return Finding("warning", f"{free:.1f} GB free in {short[0]}", "empty it, or set TMPDIR")
    return ok(f"{folder}, {free:.0f} GB free; Ray's in {short[0]}")


def _ports(_environment: Environment) -> Finding:
    """Check that processes can connect to each other on this machine, as Ray's do."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
    except OSError as problem:
        return Finding(
            "failed",
            f"127.0.0.1 cannot be used ({problem.strerror})",
            "allow connections within this machine in firewall or sandbox",
        )
    return ok("127.0.0.1 accepts connections")


def _host_name(_environment: Environment) -> Finding:
    name = socket.gethostname()
    try:
        socket.gethostbyname(name)
    except OSError:
        return Finding("warning", f"{name} has no address", f"add `127.0.0.1 {name}` to /etc/hosts")
    return ok(name)


def _proxies(_environment: Environment) -> Finding:
    """Check that no proxy is used for 127.0.0.1, which would cut off MLflow and Ray."""
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY")
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if proxy and not any(name in exempt for name in ("127.0.0.1", "localhost", "*")):
        return Finding(
            "warning", f"{proxy} is also used for this machine", "export NO_PROXY=127.0.0.1"
        )
    return ok("127.0.0.1 is exempt" if proxy else "no proxy set")


CHECKS: dict[str, Callable[[Environment], Finding]] = {
    "python": _python,
    "system": _system,
    "packages": _packages,
    **{f"{name} works": _import_check(name) for name in FIRST_STEPS},
    "GPU": _gpu,
    "cores": _cores,
    "memory": _memory,
    "shared memory": _shared_memory,
    "open files": _open_files,
    "temporary folder": _temporary,
    "ports": _ports,
    "host name": _host_name,
    "proxies": _proxies,
}
