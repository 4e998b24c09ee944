"""Tests, checks and benchmarks; a package, because an extra installs one of the same name."""
