"""Kills real studies from outside, and fills their disks; see `python -m tests.chaos --help`."""
