"""Where data sets come from, if not from a file that is there."""
