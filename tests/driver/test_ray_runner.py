"""Private parts of Ray that are used: a version without them fails here first."""

from __future__ import annotations

import pytest
from ray.tune.execution import class_cache

from study.driver import ray_runner


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
    ray_runner.withhold_secrets()
    assert {name for name in handed_over() if "SECRET" in name or "TOKEN" in name} == set()
    assert not set(ray_runner.SECRETS) & handed_over()
