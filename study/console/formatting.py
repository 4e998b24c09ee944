"""Numbers, durations and paths in words."""

from __future__ import annotations

from pathlib import Path

from study.core.records import METRICS

MILLI = {"eV/Å": "meV/Å", "eV/atom": "meV/atom", "eV": "meV"}
"""Units that read better by the thousandth."""


def with_unit(metric: str, value: float) -> str:
    """A metric's value for people, such as 63.9 meV/Å."""
    unit = METRICS[metric][0]
    if unit in MILLI:
        return f"{1000 * value:.4g} {MILLI[unit]}"
    return f"{value:.4g} {unit}" if unit != "1" else f"{value:.4g}"


def near(path: Path) -> Path:
    """Relative to here, if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def counted(count: int, what: str) -> str:
    """A number of things in words: 1 seed, 3 seeds."""
    return f"{count} {what}" + "s" * (count != 1)


def duration(seconds: float) -> str:
    """Seconds in words: 40 s, 7 min, 3.5 h, 2.1 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
