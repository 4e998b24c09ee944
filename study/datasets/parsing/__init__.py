"""What all readers share: bounded text and arrays, names of labels, units, boundaries."""
