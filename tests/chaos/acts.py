"""What is done to a study, and when: everything that can be seen and hit from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from study.core.signals import EXIT_INTERRUPTED, EXIT_UNFINISHED
from tests.chaos.processes import kill, living, named, seconds_until_gone
from tests.chaos.study import LONGEST, Study
from tests.faults.cluster import LocalCluster

PATIENCE = 90.0
"""Seconds in which all processes of a killed study must be gone, on a machine that is busy."""

STOPPED = 60.0
"""Seconds for which a driver is stopped."""

SIGNALS = {"SIGINT": EXIT_INTERRUPTED, "SIGTERM": EXIT_INTERRUPTED, "SIGUSR1": EXIT_UNFINISHED}
"""Signals that a study heeds, and the exit code that each must give."""

ENDING = ("driver", "group", "tree")
"""Targets whose end is the command's at once."""

MOMENTS: dict[str, Callable[[Study], object]] = {
    "start": lambda _: True,
    "data": lambda study: "pieces" in study.log.read_text(errors="replace"),
    "worker": lambda study: named(study.mark, "worker"),
    "checkpoint": lambda study: (
        any(study.place.out.glob("work/*/epoch-*")) and named(study.mark, "worker")
    ),
    "late": lambda study: len(list(study.place.out.glob("work/trial-*/result.json"))) >= 2,
    "publishing": lambda study: named(study.mark, "publisher"),
    "node": lambda study: _on_second_node(study),
}
"""From when on a hit is due, as the file system and the process table show it."""


@dataclass(frozen=True)
class Act:
    """One thing done to a study.

    Args:
        moment: one of `MOMENTS`.
        target: which processes get the signal.
        within: seconds after the moment, drawn from 0 to this.
        damage: what is done to checkpoints afterwards, if anything: delete, alter, cut or all.
    """

    moment: str
    target: str
    within: float = 1.0
    damage: str = ""


@dataclass(frozen=True)
class Seen:
    """What came of it.

    Args:
        moment: seconds after the start of the command, and what had come.
        code: exit code of the command that was hit; none if it went on.
        seconds: until all its processes were gone, or it had ended.
        problems: what must not be.
    """

    moment: str
    code: int | None
    seconds: float | None
    problems: list[str]


def perform(study: Study, act: Act, delay: float) -> Seen | None:
    """Start the study unless it runs, wait for the moment, do it; none if it ended before."""
    driver = study.start()
    due, deadline = MOMENTS[act.moment], time.monotonic() + LONGEST
    while not due(study) and time.monotonic() < deadline:
        if driver.poll() is not None:
            return None
        time.sleep(0.05)
    time.sleep(delay)
    if driver.poll() is not None:
        return None
    moment = f"{act.moment}, {time.monotonic() - study.began:.1f} s"
    seen = _do(study, driver, act.target, moment)
    if seen is not None and act.damage:
        damaged = _damage(study.place.out, act.damage)
        return Seen(f"{seen.moment}; {damaged}", seen.code, seen.seconds, seen.problems)
    return seen


def _do(study: Study, driver: subprocess.Popen[bytes], target: str, moment: str) -> Seen | None:
    if target in ENDING:
        return _kill(study, driver, target, moment)
    if target in SIGNALS:
        return _signal(study, driver, target, moment)
    if target == "stop":
        return _stop(driver, moment)
    if target == "node" and study.cluster is not None:
        return _kill_node(study, study.cluster, moment)
    return _kill_part(study, driver, target, moment)


def _kill(study: Study, driver: subprocess.Popen[bytes], target: str, moment: str) -> Seen:
    """End the command; all that it has started must end by itself."""
    others = living(study.mark)
    if target == "group":
        os.killpg(driver.pid, signal.SIGKILL)
    driver.kill()
    if target == "tree":
        kill(others)
    code = study.ended(LONGEST)
    gone = seconds_until_gone(study.mark, PATIENCE)
    return Seen(moment, code, gone, _alive(study) if gone is None else [])


def _alive(study: Study) -> list[str]:
    left = living(study.mark)
    names = [" ".join(process.cmdline())[:100] for process in left]
    kill(left)
    return [f"alive after {PATIENCE:g} s: {name}" for name in names]


def _signal(study: Study, driver: subprocess.Popen[bytes], name: str, moment: str) -> Seen:
    """Ask the whole group to end, as a terminal or a batch system does."""
    number, began = signal.Signals[name], time.monotonic()
    if not _heeds(driver):
        return Seen(moment, None, None, [f"{name} came before it was heeded"])
    os.killpg(driver.pid, number)
    code = study.ended(LONGEST)
    gone = seconds_until_gone(study.mark, PATIENCE)
    problems = _alive(study) if gone is None else []
    # It may have been about to end anyway.
    if code not in (SIGNALS[name], 0):
        problems.append(f"exit code {code} after {name}: {study.said()}")
    return Seen(moment, code, time.monotonic() - began, problems + study.tracebacks())


def _heeds(driver: subprocess.Popen[bytes]) -> bool:
    """Wait until it handles signals: Python alone catches no SIGUSR1."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{driver.pid}/status").read_text()
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
            if caught >> (signal.SIGUSR1 - 1) & 1:
                return True
        time.sleep(0.02)
    return False


def _stop(driver: subprocess.Popen[bytes], moment: str) -> Seen:
    """Stop the driver for a minute, as a suspended laptop or a debugger does."""
    driver.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED)
    driver.send_signal(signal.SIGCONT)
    return Seen(moment, None, STOPPED, [])


def _kill_node(study: Study, cluster: LocalCluster, moment: str) -> Seen | None:
    """Kill the second node while it trains; the first alone must go on from its checkpoints."""
    deadline = time.monotonic() + LONGEST
    while not (lost := _on_second_node(study)) and time.monotonic() < deadline:
        if study.driver is None or study.driver.poll() is not None:
            return None
        time.sleep(0.05)
    cluster.kill_node()
    began, problems = time.monotonic(), list[str]()
    for job, epochs in lost.items():
        problems += _follow(job, _epochs(job) or epochs, deadline)
    cluster.add_node()
    at = ", ".join(f"{job.name[:9]} at epoch {max(epochs)}" for job, epochs in lost.items())
    return Seen(f"{moment}; {at}", None, time.monotonic() - began, problems)


def _on_second_node(study: Study) -> dict[Path, set[int]]:
    """Jobs that the second node trains, by the locks it holds, and their checkpoints' epochs."""
    assert study.cluster is not None
    jobs: dict[Path, set[int]] = {}
    for worker in study.cluster.workers():
        with contextlib.suppress(psutil.Error):
            held = {Path(file.path) for file in worker.open_files()}
            jobs |= {lock.parent: _epochs(lock.parent) for lock in held if lock.name == "lock"}
    return {job: epochs for job, epochs in jobs.items() if min(epochs, default=0) > 1}


def _follow(job: Path, before: set[int], deadline: float) -> list[str]:
    """Wait until a job has got on; a checkpoint of an earlier epoch says that it began anew."""
    while time.monotonic() < deadline:
        now = _epochs(job)
        if (job / "result.json").exists() or max(now, default=0) > max(before) + 1:
            return []
        if now and min(now) < min(before):
            return [f"{job.name} began anew: epochs {sorted(before)}, then {sorted(now)}"]
        time.sleep(0.02)
    return [f"{job.name} does not go on after epoch {max(before)}"]


def _epochs(job: Path) -> set[int]:
    """Those of a job's checkpoints."""
    return {int(path.name.split("-")[1]) for path in job.glob("epoch-*")}


def _kill_part(
    study: Study, driver: subprocess.Popen[bytes], target: str, moment: str
) -> Seen | None:
    """Kill one process; the study goes on, or ends in order with a line; none if there is none."""
    found, began = named(study.mark, target), time.monotonic()
    if not found:
        return None
    kill(found[:1])
    if target in ("worker", "publisher"):
        return Seen(moment, driver.poll(), None, [])
    code = study.ended(LONGEST)
    gone = seconds_until_gone(study.mark, PATIENCE)
    problems = _alive(study) if gone is None else []
    if code not in (0, 71):
        problems.append(f"exit code {code} after the end of {target}: {study.said()}")
    return Seen(moment, code, time.monotonic() - began, problems + study.tracebacks())


def _damage(out: Path, how: str) -> str:
    """Delete or change checkpoints; returns what was done."""
    checkpoints = sorted(out.glob("work/*/epoch-*"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        return "no checkpoint"
    chosen = checkpoints if how == "all" else checkpoints[-1:]
    for path in chosen:
        content = bytearray(path.read_bytes())
        if how == "alter":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        elif how == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.unlink()
    return f"{how}: {len(chosen)} of {len(checkpoints)} checkpoints"
