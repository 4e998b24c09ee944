"""Numbers as text."""

from __future__ import annotations

import math

from analysis.formatting import energy, operations


def test_costs_are_told_in_fitting_units() -> None:
    assert [operations(x) for x in (0.0, 999.0, 1.5e12)] == ["0 FLOP", "999 FLOP", "1.50 TFLOP"]
    assert [energy(x) for x in (1500.0, 7.2e6, math.nan)] == ["1.50 kJ", "2.00 kWh", "–"]
