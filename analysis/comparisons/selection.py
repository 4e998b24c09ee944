"""Columns and rows of a study's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def only(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Select the columns that exist; selecting rows is slow beside a hundred others."""
    return frame[[name for name in names if name in frame]]


def column(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a column, or missing values if it does not exist."""
    return frame[name] if name in frame else pd.Series(None, frame.index, dtype="str")
