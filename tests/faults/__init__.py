"""Faults at every step of a small study, and what must hold after it was run again."""
