"""Figures of a study; each module draws those of one search space."""
