"""Processes that work for one that may be interrupted or killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from study.core.errors import UserError

Result = TypeVar("Result")


def in_processes(
    work: Callable[..., Result], jobs: Mapping[int, tuple[Any, ...]], workers: int, what: str
) -> Iterator[tuple[int, Result]]:
    """What a function gives for each of some arguments, as it comes, with the number of these.

    Args:
        work: a function of a module.
        jobs: its arguments, by number.
        workers: processes.
        what: they do, in words.

    Raises:
        UserError: if a process dies.
    """
    with (
        _one_thread_each(),
        ProcessPoolExecutor(
            max(1, min(workers, len(jobs))),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=end_with_parent,
            initargs=(signal.SIG_DFL,),
        ) as pool,
    ):
        running = {pool.submit(work, *job): number for number, job in jobs.items()}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool:
            raise UserError(
                f"a process that {what} has died; run again to go on from what is there"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """New processes compute with one thread, so that sums are always in the same order."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


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
