"""Whole studies on Ray's workers."""
