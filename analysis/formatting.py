"""Numbers, intervals, durations and lists as text."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd
from pandas.api.types import is_numeric_dtype

from study.core.errors import printable

NONE = "–"
"""Stands for a missing number."""

FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of what a spreadsheet takes for a formula, full-width ones included."""

PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


def number(value: float, like: float | None = None) -> str:
    """Three significant digits; as many decimals as `like` gets if that is given."""
    if pd.isna(value):
        return NONE
    if math.isinf(value):
        return signed("∞" if value > 0 else "-∞")
    scale = abs(value if like is None or not math.isfinite(like) else like)
    if scale and not 1e-4 <= scale < 1e6:
        return signed(f"{value:.2e}")
    decimals = max(0, 2 - math.floor(math.log10(scale))) if scale else 0
    return signed(f"{value:.{decimals}f}")


def csv(table: pd.DataFrame) -> bytes:
    """A table as CSV, whose texts a spreadsheet shows and never runs as formulas."""
    texts = [str(name) for name in table.columns if not is_numeric_dtype(table[name])]
    shown = table.assign(**{name: table[name].map(_inert) for name in texts})
    return shown.rename(columns=_inert).to_csv(index=False).encode()


def _inert(value: object) -> object:
    """A text that begins like a formula with an apostrophe before it; anything else as it is."""
    if not isinstance(value, str):
        return value
    value = printable(value)
    if not value.lstrip().startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def spread(mean: float, std: float) -> str:
    """Mean ± standard deviation; a single value has none."""
    return number(mean) if pd.isna(std) else f"{number(mean)} ± {number(std, like=mean)}"


def percent(value: float) -> str:
    """A change with its sign, in %; an unbounded end of an interval is not spelled out."""
    if pd.isna(value):
        return NONE
    return "> +999" if value > 999 else signed(f"{value:+.1f}")


def interval(low: float, high: float) -> str:
    """Both ends in %, or nothing if there are too few seeds for one."""
    return "" if pd.isna(low) else f"[{percent(low)}, {percent(high)}]"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if pd.isna(seconds):
        return NONE
    if seconds < 120:
        return f"{number(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def operations(flops: float) -> str:
    """Floating point operations."""
    return _prefixed(flops, "FLOP")


def energy(joules: float) -> str:
    """Joules, in kWh from a tenth of one on."""
    if joules >= 3.6e5:
        return f"{number(joules / 3.6e6)} kWh"
    return _prefixed(joules, "J")


def _prefixed(value: float, unit: str) -> str:
    if pd.isna(value):
        return NONE
    power = min(max(0, math.floor(math.log10(value) / 3)), len(PREFIXES) - 1) if value > 0 else 0
    return f"{number(value / 1000**power)} {PREFIXES[power]}{unit}"


def signed(text: str) -> str:
    """Typographic minus."""
    return text.replace("-", "−")


def listed(items: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = [*items] or [""]
    return f"{', '.join(most)} and {last}" if most else last
