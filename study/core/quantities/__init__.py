"""Chemical elements, units, and the properties that models predict."""
