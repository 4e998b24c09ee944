"""What proposes the trials of a search, as the user names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict

from study.core.components import resolve
from study.core.config import Component, Own, shipped


class SamplerConfig(Component):
    """Settings of a sampler; derive from it for a sampler of your own."""

    title: ClassVar[str] = ""
    """What papers call it."""

    def build(self, seed: int) -> Any:
        """Make an `optuna.samplers.BaseSampler`; each proposal gets a new one and another seed.

        Args:
            seed: of all that is random in it.
        """
        return resolve(self.implementation)(seed=seed)


class TPE(SamplerConfig):
    """Tree-structured Parzen estimator (NeurIPS 2011, 10.5555/2986459.2986743)."""

    implementation = "optuna.samplers:TPESampler"
    title = "TPE"

    name: Literal["tpe"]


class RandomSearch(SamplerConfig):
    """Independent uniform samples."""

    implementation = "optuna.samplers:RandomSampler"
    title = "random"

    name: Literal["random"]


class OwnSampler(Own, SamplerConfig):
    """A sampler of one's own: a class derived from `study.plugins.SamplerConfig`, with its keys."""

    model_config = ConfigDict(extra="allow")


def shipped_sampler(name: str) -> SamplerConfig:
    """The settings of a sampler that a space calls by its name alone."""
    return shipped(SamplerConfig)[name].model_validate({"name": name})


if TYPE_CHECKING:
    AnySampler = str | OwnSampler
else:
    AnySampler = Literal[tuple(shipped(SamplerConfig))] | OwnSampler
"""The name of a shipped sampler, or the settings of the user's own."""
