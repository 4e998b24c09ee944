"""What proposes the trials of a search, as the user names it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Field, Tag

from study.core.components import resolve
from study.core.config import Component, Own
from study.core.hashing import digest
from study.space.search import optuna_classes
from study.space.search.population import NAME, PopulationBased

QUICK = {"tpe": "optuna.samplers:TPESampler", "random": "optuna.samplers:RandomSampler"}
"""Samplers that need no check: known here, so that a space with them loads without Optuna."""

ORDERED: dict[str, dict[str, Any]] = {
    "grid": {},
    "qmc": {"scramble": True, "independent_sampler": {"name": "random"}},
}
"""Samplers whose seed orders one sequence for the whole search, of which each proposal is a term,
and their usual options."""


def proposal_seed(seed: int, number: int) -> int:
    """Seed of a proposal, by the seed of the search and the proposal's number."""
    return int(digest([seed, number])[:8], 16)


class SamplerConfig(Component):
    """Settings of a sampler; derive from it for a sampler of your own."""

    def build(self, seed: int) -> Any:
        """Make an `optuna.samplers.BaseSampler`; each proposal gets a new one and another seed.

        Args:
            seed: of all that is random in it.
        """
        return resolve(self.implementation)(seed=seed)

    def for_proposal(self, seed: int, number: int) -> Any:
        """Make what draws one proposal.

        Args:
            seed: of the search.
            number: of the proposal.
        """
        return self.build(proposal_seed(seed, number))


class OptunaSampler(SamplerConfig):
    """A class of `optuna.samplers` by its plain name, with options as the class takes them."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1, max_length=64)
    """tpe, random, gp, cmaes, nsgaii, nsgaiii, qmc, bruteforce, grid, partial_fixed, botorch; or a
    package of OptunaHub, such as samplers/auto_sampler, with the commit `ref` of its registry."""

    @property
    def options(self) -> dict[str, Any]:
        """What the space gives to its constructor."""
        return self.model_extra or {}

    @property
    def label(self) -> str:
        """Its name with its options."""
        name = "TPE" if self.name == "tpe" else self.name
        return " ".join([name, *(f"{key}={value}" for key, value in self.options.items())])

    def build(self, seed: int) -> Any:
        """Make the sampler."""
        if self.name in QUICK and not self.options:
            return resolve(QUICK[self.name])(seed=seed)
        return optuna_classes.make(self.name, self.options, optuna_classes.SAMPLERS, seed)

    def for_proposal(self, seed: int, number: int) -> Any:
        """Make what draws one proposal; a sequence is the same one for all of them."""
        usual = ORDERED.get(optuna_classes.plain(self.name))
        if usual is None:
            return super().for_proposal(seed, number)
        options, own_seed = usual | self.options, proposal_seed(seed, number)
        return optuna_classes.make(self.name, options, optuna_classes.SAMPLERS, seed, own_seed)


class OwnSampler(Own, SamplerConfig):
    """A sampler of one's own: a class derived from `study.plugins.SamplerConfig`, with its keys."""

    model_config = ConfigDict(extra="allow")


def _form(value: Any) -> str:
    """Tag of the way in which a sampler is named."""
    if isinstance(value, str):
        return "<str>"
    own = "code" in value if isinstance(value, dict) else isinstance(value, OwnSampler)
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if name == NAME and not own:
        return "<PopulationBased>"
    return "<OwnSampler>" if own else "<OptunaSampler>"


AnySampler = Annotated[
    Annotated[str, Tag("<str>")]
    | Annotated[PopulationBased, Tag("<PopulationBased>")]
    | Annotated[OptunaSampler, Tag("<OptunaSampler>")]
    | Annotated[OwnSampler, Tag("<OwnSampler>")],
    Discriminator(_form),
]
"""A plain name, a name with options, or the settings of the user's own."""


def as_config(
    sampler: str | OptunaSampler | OwnSampler | PopulationBased,
) -> OptunaSampler | OwnSampler | PopulationBased:
    """The settings of a sampler, whichever way it was named."""
    if sampler == NAME:
        return PopulationBased()
    return OptunaSampler(name=sampler) if isinstance(sampler, str) else sampler
