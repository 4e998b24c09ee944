"""Energy consumption of a process, from RAPL or NVML counters."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
"""RAPL energy counters of Linux, one per CPU package."""

STAT = Path("/proc/stat")
"""CPU time of all processors by state, in clock ticks, in the first line."""

IDLE_COLUMNS = (3, 4)
"""Columns of that line with idle time: idle and iowait."""


class EnergyMeter:
    """Measures the energy that this process consumes.

    On CPUs it is the energy of all packages times this process's fraction of the busy CPU time; on
    a GPU the energy of the whole GPU, whoever shares it. It is unknown where the machine has no
    counters or this user may not read them.

    Args:
        device: the device that computes.
        packages: folder of the RAPL counters.
        stat: file with the busy time of all CPUs.
    """

    def __init__(self, device: torch.device, packages: Path = POWERCAP, stat: Path = STAT) -> None:
        self._joules = (
            _nvml_counter(device) if device.type == "cuda" else _rapl_counter(packages, stat)
        )

    def lap(self) -> float | None:
        """Energy since the last call or else since construction, J; None if unknown."""
        return None if self._joules is None else self._joules()


Lap = Callable[[], float]


def _nvml_counter(device: torch.device) -> Lap | None:
    """Read the GPU's counter by NVML, if pynvml is installed."""
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


def _rapl_counter(packages: Path, stat: Path) -> Lap | None:
    folders = sorted(packages.glob("intel-rapl:[0-9]*"))
    folders = [
        folder for folder in folders if folder.name.count(":") == 1
    ]  # Packages, not their subzones.

    def read() -> tuple[list[int], float, float]:
        energies = [int((folder / "energy_uj").read_text()) for folder in folders]
        ticks = [int(text) for text in stat.read_text().split(maxsplit=9)[1:9]]
        busy = sum(ticks) - sum(ticks[column] for column in IDLE_COLUMNS)
        return energies, busy / os.sysconf("SC_CLK_TCK"), time.process_time()

    try:
        spans = [int((folder / "max_energy_range_uj").read_text()) for folder in folders]
        last = read()
    except (OSError, ValueError):
        return None

    def lap() -> float:
        nonlocal last
        (energies, busy, own), last = last, read()
        # Counters wrap around at their maximum.
        microjoules = sum(
            (new - old) % span for new, old, span in zip(last[0], energies, spans, strict=True)
        )
        worked = last[1] - busy
        return microjoules / 1e6 * min(1.0, (last[2] - own) / worked) if worked > 0 else 0.0

    return lap if folders else None
