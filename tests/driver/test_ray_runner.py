"""What workers on Ray are told and tell."""

from __future__ import annotations

import pytest
from ray.tune.execution import class_cache

from study.driver import ray_adapters, ray_runner


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

    assert set(ray_runner.SECRETS) <= handed_over()
    ray_runner.keep_secrets()
    assert {name for name in handed_over() if "SECRET" in name or "TOKEN" in name} == set()
    assert not set(ray_runner.SECRETS) & handed_over()


def test_ray_tells_how_short_of_memory_the_machine_was() -> None:
    told = (
        "ray.exceptions.OutOfMemoryError: 1 worker(s) were killed due to the node running low on "
        "memory. Memory on the node (IP: 127.0.0.1, ID: ab) was 22.41GB used / 23.52GB limit "
        "(0.952806); Refer to the documentation on how to address the out of memory issue: https://x"
    )
    assert ray_adapters._shortage(told) == " when 22.41 of 23.52 GB of the machine were in use"
    assert ray_adapters._shortage("killed") == ""
