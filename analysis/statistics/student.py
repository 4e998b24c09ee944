"""Student's t in closed form for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 4).

The end of a study shows intervals in the terminal, also when there was nothing left to do, and
scipy takes longer to import than all else that such a run does.
"""

from __future__ import annotations

import math


def central(t: float, df: int) -> float:
    """P(|T| < t)."""
    return _central(math.atan(t / math.sqrt(df)), df)


def quantile(level: float, df: int) -> float:
    """The t with P(|T| < t) = `level`."""
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _central(middle, df) < level else (low, middle)
    return math.sqrt(df) * math.tan(low)


def _central(angle: float, df: int) -> float:
    odd, cosine = df % 2, math.cos(angle)
    term = cosine if odd else 1.0
    total = 0.0 if df == 1 else term
    for k in range(odd + 2, df - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inner = math.sin(angle) * total
    return 2 / math.pi * (angle + inner) if odd else inner
