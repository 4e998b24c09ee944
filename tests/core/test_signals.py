"""The first signal ends a study in order, the second at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from study.console import run_options

PROGRAM = """
import os, sys, time
from study.core import signals
from study.core.signals import ShutdownRequest, handle_signals

signals.GRACE_PERIOD = GRACE_IS
asked = []

def ask():
    asked.append(1)
    # Not by print: the signal may come while "ready" is being printed.
    os.write(1, b"asked\\n")

def work():
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (asked and OBEYS):
        time.sleep(0.01)

ending = ShutdownRequest()
try:
    with handle_signals(MOMENT) as ending:
        try:
            if WORKS:
                with ending.graceful_shutdown(ask):
                    print("ready", flush=True)
                    work()
            else:
                print("ready", flush=True)
                time.sleep(60)
        finally:
            print("tidying", flush=True)
            time.sleep(TIDYING)
except KeyboardInterrupt:
    sys.exit(ending.code)
"""
DEFAULTS = {"MOMENT": None, "TIDYING": 0, "WORKS": False, "OBEYS": True, "GRACE_IS": 30}


def program(**values: object) -> subprocess.Popen[str]:
    text = PROGRAM
    for name, value in (DEFAULTS | values).items():
        text = text.replace(name, repr(value))
    started = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert line(started) == "ready"
    return started


def line(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGUSR1, 75)]
)
@pytest.mark.parametrize("works", [False, True])
def test_a_signal_ends_in_order(number: int, code: int, *, works: bool) -> None:
    with program(WORKS=works) as started:
        os.kill(started.pid, number)
        assert not works or line(started) == "asked"
        assert line(started) == "tidying"
        assert started.wait(10) == code


def test_a_moment_ends_in_order() -> None:
    with program(MOMENT=0.1, WORKS=True) as started:
        assert line(started) == "asked"
        assert started.wait(10) == 75


def test_work_that_does_not_end_is_interrupted() -> None:
    with program(WORKS=True, OBEYS=False, GRACE_IS=0.2) as started:
        os.kill(started.pid, signal.SIGUSR1)
        assert [line(started), line(started)] == ["asked", "tidying"]
        assert started.wait(10) == 75


@pytest.mark.parametrize("works", [False, True])
def test_a_second_signal_ends_at_once(*, works: bool) -> None:
    with program(TIDYING=60, WORKS=works, OBEYS=False) as started:
        os.kill(started.pid, signal.SIGUSR1)
        assert line(started) == ("asked" if works else "tidying")
        os.kill(started.pid, signal.SIGINT)
        assert started.wait(10) == 75
        assert line(started) == ""


def test_a_second_warning_of_slurm_changes_nothing() -> None:
    with program(TIDYING=0.5) as started:
        os.kill(started.pid, signal.SIGUSR1)
        assert line(started) == "tidying"
        os.kill(started.pid, signal.SIGUSR1)
        assert started.wait(10) == 75


@pytest.mark.parametrize(
    ("environment", "arguments", "least", "most"),
    [
        ({}, [], None, None),
        ({"SLURM_JOB_END_TIME": "soon"}, [], None, None),
        ({"SLURM_JOB_END_TIME": "+3600"}, [], 3600 - run_options.SLURM_MARGIN - 5, 3600),
        ({"SLURM_JOB_END_TIME": "+1"}, [], 0.1, 1),
        ({"SLURM_JOB_END_TIME": "+60"}, ["--stop-at", "2999-01-01T00:00"], 1e9, 1e11),
    ],
)
def test_a_study_ends_in_time_for_slurm(
    environment: dict[str, str],
    arguments: list[str],
    least: float | None,
    most: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    for name, value in environment.items():
        moment = str(int(time.time()) + int(value)) if value[0] == "+" else value
        monkeypatch.setenv(name, moment)
    left = run_options.parse_options(["--space", "x", *arguments]).seconds_left
    if least is None or most is None:
        assert left is None
    else:
        assert left is not None
        assert least <= left <= most
