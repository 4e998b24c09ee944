"""The processes of a study, those of its own Ray included, which run in a session of their own."""

from __future__ import annotations

import contextlib
import os

import psutil


def family(driver: psutil.Process) -> list[psutil.Process]:
    """A driver's children, and all processes of the sessions that they lead."""
    children = driver.children(recursive=True)
    leaders = {child.pid for child in children if _session(child.pid) == child.pid}
    known = {child.pid for child in children}
    others = [process for process in psutil.process_iter() if process.pid not in known]
    return children + [process for process in others if _session(process.pid) in leaders]


def _session(process: int) -> int:
    with contextlib.suppress(OSError):
        return os.getsid(process)
    return 0
