"""The stages of trials, each pretraining once."""

from __future__ import annotations

from typing import Any

from study.core.hashing import digest
from study.space.trial import Trial
from study.training.config import Stage


def stages(trials: list[Trial]) -> list[tuple[Trial, Stage]]:
    """All stages of some trials, and each pretraining once."""
    pretrained = _longest(one_per_pretraining(trials))
    stages = [(trial, trial.finetune) for trial in trials]
    return stages + [(trial, trial.pretraining) for trial in pretrained if trial.pretraining]


def one_per_pretraining(trials: list[Trial]) -> list[Trial]:
    """One for each different pretraining."""
    pretrained = [trial for trial in trials if trial.pretraining is not None]
    return list({digest([_pretraining_of(trial)]): trial for trial in pretrained}.values())


def _longest(pretrained: list[Trial]) -> list[Trial]:
    """Keep the longest of those pretrainings that share their epochs."""
    longest: dict[str, Trial] = {}
    for trial in sorted(pretrained, key=_pretraining_epochs):
        settings = _pretraining_of(trial)
        if settings["pretrain"]["schedule_epochs"] is not None:
            del settings["pretrain"]["epochs"]
        longest[digest([settings])] = trial
    return list(longest.values())


def _pretraining_epochs(trial: Trial) -> int:
    return trial.pretraining.epochs if trial.pretraining else 0


def _pretraining_of(trial: Trial) -> dict[str, Any]:
    """The settings that a pretraining depends on."""
    elsewhere = len(trial.datasets) > 1
    exclude = {"finetune", "transfer"} | ({"dataset"} if elsewhere else set())
    return trial.model_dump(exclude=exclude, mode="json")
