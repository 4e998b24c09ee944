"""Ray's start on this machine, and what it must not tell."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import ray
from ray._private.node import Node
from ray.tune.execution import class_cache

from study import tune
from study.errors import UserError
from study.session import require_cluster
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


class Nothing:
    """Stands for a trainable."""


def test_secrets_of_the_environment_are_not_handed_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(class_cache.ENV_VARS_TO_PROPAGATE)
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", before)
    for name in before:
        monkeypatch.setenv(name, "given")

    def handed_over() -> set[str]:
        actor = class_cache._ActorClassCache().get(Nothing)
        return set(actor._default_options["runtime_env"]["env_vars"])

    assert set(tune.SECRETS) <= handed_over()
    tune.keep_secrets()
    assert {name for name in handed_over() if "SECRET" in name or "TOKEN" in name} == set()
    assert not set(tune.SECRETS) & handed_over()


def test_a_cluster_that_is_not_there_is_noticed_without_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "init", None)
    with pytest.raises(UserError, match=r"--address 127\.0\.0\.1:9: nobody answers"):
        require_cluster("127.0.0.1:9")


def test_ray_tells_how_short_of_memory_the_machine_was() -> None:
    told = (
        "ray.exceptions.OutOfMemoryError: 1 worker(s) were killed due to the node running low on "
        "memory. Memory on the node (IP: 127.0.0.1, ID: ab) was 22.41GB used / 23.52GB limit "
        "(0.952806); Refer to the documentation on how to address the out of memory issue: https://x"
    )
    assert tune._shortage(told) == " when 22.41 of 23.52 GB of the machine were in use"
    assert tune._shortage("killed") == ""
