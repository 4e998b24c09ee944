"""Damaged files and odd command lines: every answer is right, or a line that says why not.

`python -m tests.fuzz` damages small files of every format by seed, runs real commands on them, each
in a process of its own, and counts tracebacks, hangs, crashes, memory beyond a gigabyte, and frames
that are misread in silence. It exits 1 if there is any.
"""
