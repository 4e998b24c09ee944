"""Studies as tables, comparisons and statistics."""
