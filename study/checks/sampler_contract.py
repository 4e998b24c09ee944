"""Invariants that every sampler must satisfy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import optuna

from study.checks.finding import run_check
from study.scheduling.proposals.optuna_study import RepeatableSampler
from study.space.search.samplers import SamplerConfig

PROPOSALS = 15
"""So many that samplers which begin with random ones have ended with that."""


def _proposals(settings: SamplerConfig, seed: int) -> list[dict[str, Any]]:
    """What is proposed for a parabola over two numbers and a choice."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=RepeatableSampler(settings, seed))
    for _ in range(PROPOSALS):
        trial = study.ask()
        ratio = trial.suggest_float("ratio", 0.1, 0.9)
        scale = trial.suggest_float("scale", 1e-4, 1.0, log=True)
        task = trial.suggest_categorical("task", ["masking", "denoising"])
        study.tell(trial, (ratio - 0.3) ** 2 + scale + (task == "masking"))
    return [trial.params for trial in study.trials]


def _proposes(settings: SamplerConfig) -> str:
    proposals = _proposals(settings, seed=0)
    different = len({tuple(proposal.values()) for proposal in proposals})
    return "" if different > 1 else f"must propose different trials, but gave {proposals[0]} always"


def _repeatable(settings: SamplerConfig) -> str:
    if _proposals(settings, seed=1) == _proposals(settings, seed=1):
        return ""
    return "equal seeds must give equal proposals; draw all that is random from the seed of `build`"


def _seeded(settings: SamplerConfig) -> str:
    if _proposals(settings, seed=1) != _proposals(settings, seed=2):
        return ""
    return "other seeds must give other proposals; draw all that is random from the seed of `build`"


CHECKS: dict[str, Callable[[SamplerConfig], str]] = {
    "it proposes trials": _proposes,
    "equal seeds give equal proposals": _repeatable,
    "other seeds give other proposals": _seeded,
}


def examine(settings: SamplerConfig) -> Iterator[tuple[str, str]]:
    """Run all checks of a sampler; yield the name and the problem of each, empty if it passed."""
    for name, check in CHECKS.items():
        yield name, run_check(check, settings)
