"""Foundations: errors, files, hashing, provenance, records, units, seeding, signals."""
