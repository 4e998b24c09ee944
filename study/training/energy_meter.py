"""Energy that processors and GPUs draw meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
"""Where Linux tells what each package of processors has drawn (RAPL)."""

STAT = Path("/proc/stat")
"""Where it tells, in the first line, what all processors did, in ticks."""

WAITING = (3, 4)
"""Numbers of that line in which they did nothing: idle, and waiting for disks."""


class EnergyMeter:
    """The energy that a process takes.

    On CPUs it is what their packages draw, by this process's share of the time that processors
    work; on a GPU what the whole GPU draws, whoever shares it. Unknown where the machine does not
    tell it, or not to this user.

    Args:
        device: on which the process computes.
        packages: folder that tells of the CPUs.
        stat: file that tells how long they have worked.
    """

    def __init__(self, device: torch.device, packages: Path = POWERCAP, stat: Path = STAT) -> None:
        self._joules = _of_gpu(device) if device.type == "cuda" else _of_cpus(packages, stat)

    def lap(self) -> float | None:
        """Energy since the last call, or else since the meter was made, J."""
        return None if self._joules is None else self._joules()


Lap = Callable[[], float]


def _of_gpu(device: torch.device) -> Lap | None:
    """By NVML, if the package that speaks with it is there."""
    try:
        import pynvml  # type: ignore[import-not-found]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        last = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None

    def lap() -> float:
        nonlocal last
        before, last = last, pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return float(last - before) / 1e3

    return lap


def _of_cpus(packages: Path, stat: Path) -> Lap | None:
    folders = sorted(packages.glob("intel-rapl:[0-9]*"))
    folders = [folder for folder in folders if folder.name.count(":") == 1]  # Whole packages.

    def read() -> tuple[list[int], float, float]:
        drawn = [int((folder / "energy_uj").read_text()) for folder in folders]
        ticks = [int(text) for text in stat.read_text().split(maxsplit=9)[1:9]]
        busy = sum(ticks) - sum(ticks[place] for place in WAITING)
        return drawn, busy / os.sysconf("SC_CLK_TCK"), time.process_time()

    try:
        spans = [int((folder / "max_energy_range_uj").read_text()) for folder in folders]
        last = read()
    except (OSError, ValueError):
        return None

    def lap() -> float:
        nonlocal last
        (drawn, busy, own), last = last, read()
        # A counter starts again from 0 at its end.
        new = sum((n - d) % s for n, d, s in zip(last[0], drawn, spans, strict=True))
        worked = last[1] - busy
        return new / 1e6 * min(1.0, (last[2] - own) / worked) if worked > 0 else 0.0

    return lap if folders else None
