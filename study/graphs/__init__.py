"""Frames as graphs: neighbours, edges, batches."""
