"""Columns and rows of a study's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def only(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Those of the columns that there are; selecting rows is slow with a hundred others."""
    return frame[[name for name in names if name in frame]]


def column(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A column, or missing values where there is none."""
    return frame[name] if name in frame else pd.Series(None, frame.index, dtype="str")
