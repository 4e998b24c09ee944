"""Ray's start on this machine."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import ray
from ray._private.node import Node

from study import tune
from study.errors import UserError
from study.space import Resources


class Stuck(Node):  # type: ignore[misc]
    """One whose processes were started, but not in time."""

    left: list[Stuck]

    def __init__(self) -> None:
        self.left.append(self)
        raise RuntimeError("The current node timed out during startup.\nMore.")

    def kill_all_processes(self, *_: Any, **_named: Any) -> None:
        self.left.remove(self)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each start will succeed; what was tried is taken out."""
    found: list[bool] = []

    def init(**_options: Any) -> None:
        if not found.pop(0):
            Stuck()

    Stuck.left = []
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 3.0})
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
    return found


def test_ray_is_started_once_more_on_a_busy_machine(
    starts: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    starts[:] = [False, True]
    with caplog.at_level(logging.WARNING):
        assert tune.connect(Resources(cpus=1), cpus=3) == 3
    assert (starts, Stuck.left) == ([], [])
    (told,) = caplog.messages
    assert "The current node timed out during startup." in told
    assert "once more" in told
    assert "\n" not in told


def test_ray_that_never_starts_is_one_line_and_leaves_no_process(starts: list[bool]) -> None:
    starts[:] = [False, False, True]
    with pytest.raises(UserError, match="does not start on this machine") as caught:
        tune.connect(Resources(cpus=1), cpus=3)
    (problem,) = caught.value.problems
    assert "run the same command again" in problem
    assert (starts, Stuck.left) == ([True], [])


def test_a_cluster_is_asked_once(starts: list[bool]) -> None:
    starts[:] = [False, True]
    with pytest.raises(UserError, match=r"--address 127\.0\.0\.1:1: cannot connect"):
        tune.connect(Resources(cpus=1), address="127.0.0.1:1")
    assert starts == [True]
