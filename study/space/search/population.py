"""Population-based training (arXiv:1711.09846), as the user names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from study.core.config import Config
from study.space.yaml_loader import Block

if TYPE_CHECKING:
    from study.space.distributions import Hole

NAME = "pbt"

CHANGEABLE = (
    *("finetune.lr", "finetune.min_lr", "finetune.weight_decay", "finetune.clip_norm"),
    *("finetune.task.energy_weight", "finetune.task.force_weight"),
)
"""Settings that may change in the middle of a finetuning: others have a state of their own, or
decide what weights, moments or the order of batches are."""


class PopulationBased(Config):
    """Population-based training: members train side by side, and the worst go on from the best.

    After every `interval` epochs the worst take over weights, optimizer and settings of one of the
    best, and change the settings.
    """

    name: Literal["pbt"] = "pbt"
    interval: int = Field(default=5, ge=1)
    """Epochs of finetuning after which members are compared."""
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    """Share of the population that is replaced each time, and share of which it takes over."""
    resample: float = Field(default=0.25, ge=0, le=1)
    """Probability that a setting is drawn anew, instead of multiplied by 0.8 or 1.2."""

    @property
    def label(self) -> str:
        """What papers call it, with its options."""
        return f"PBT, compared every {self.interval} epochs"

    def bounds(self, epochs: int) -> list[tuple[int, int]]:
        """Epochs before and after each generation.

        Args:
            epochs: of the whole finetuning.
        """
        ends = [*range(self.interval, epochs, self.interval), epochs]
        return list(zip([0, *ends], ends, strict=False))


@dataclass(frozen=True)
class Counts:
    """How many trials a study has; of a search, at most.

    Args:
        trainings: whole ones.
        generations: parts of each, which are trials; 1 without a population.
        tests: trials that only test what parts have trained.
    """

    trainings: int
    generations: int = 1
    tests: int = 0

    @property
    def trials(self) -> int:
        """All of them."""
        return self.trainings * self.generations + self.tests


def problems_of_population(
    population: PopulationBased, holes: list[Hole], content: Block
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What does not suit population-based training: keys and rule of each problem.

    Args:
        population: its settings.
        holes: of the trial.
        content: the space.
    """
    for hole in holes:
        if hole.place not in CHANGEABLE:
            yield ("trial", *hole.place.split(".")), FIXED
        elif hole.name != hole.place:
            yield (
                ("trial", *hole.place.split(".")),
                f"takes whole options or one range with `{NAME}`",
            )
    if any(hole.name not in CHANGEABLE for hole in holes):
        return
    search, epochs = content["search"], content["trial"]["finetune"]["epochs"]
    if not holes:
        yield ("search", "sampler"), NOTHING
    if population.interval >= epochs:
        yield (
            ("search", "sampler", "interval"),
            f"must be < {epochs}, the epochs of finetuning, or nothing is ever compared, but got "
            f"{population.interval}",
        )
    for key in ("objectives", "at_most", "learn_from"):
        if search.get(key) is not None:
            yield ("search", key), ALONE
    if search["trials"] < 2:
        yield ("search", "trials"), f"must be >= 2, a population, but got {search['trials']}"


FIXED = (
    f"cannot change in the middle of a finetuning, as `{NAME}` does with what is searched; search "
    f"{', '.join(CHANGEABLE)}, or take another sampler"
)
NOTHING = "needs distributions of what changes, such as finetune.lr: {loguniform: [1e-4, 1e-2]}"
ALONE = (
    f"must be left out with `{NAME}`, which compares members by the metric alone and begins anew"
)
