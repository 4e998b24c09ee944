"""Paired changes, their intervals, rates, power, and the words of verdicts."""
