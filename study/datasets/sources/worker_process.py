"""Processes that work for one that may be interrupted or killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def end_with_parent(on_interrupt: signal.Handlers) -> None:
    """Let this process end when its parent has ended, however that was.

    Args:
        on_interrupt: what Ctrl-C does, which reaches all processes of a terminal.
    """
    signal.signal(signal.SIGINT, on_interrupt)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # Either sign alone can fail: another child may hold the parent's pipe open, and on Windows
    # the parent's id never changes.
    while parent.is_alive() and os.getppid() == parent.pid:
        parent.join(timeout=0.5)
    os._exit(1)
