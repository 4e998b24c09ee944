"""Checks of parts, data sets and machines."""
