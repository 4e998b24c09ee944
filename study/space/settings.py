"""What stands at the top of a space."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from study.core.config import Config
from study.space.search.population import Counts, PopulationBased
from study.space.search.samplers import AnySampler, as_config
from study.space.search.stopping import AnyStopping
from study.tasks.config import ENERGY_FORCES_ERRORS, SCALAR_ERRORS, STRESS_ERRORS

MOST_TRIALS = 100_000


RANKING = [f"val_{name}" for name in (*ENERGY_FORCES_ERRORS, *STRESS_ERRORS, *SCALAR_ERRORS)]

Metric = Annotated[
    str,
    Field(
        json_schema_extra={"anyOf": [{"enum": list(dict.fromkeys(RANKING))}, {"pattern": "^val_"}]}
    ),
]


class Resources(Config):
    """What one trial takes of the machine."""

    cpus: int = Field(default=1, ge=1, le=1024)
    """Threads, of each worker."""
    gpus: float = Field(default=1.0, ge=0, le=1)
    """One GPU for each worker, or a fraction of one; trials share a GPU then. Without GPUs it is
    ignored."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes of one machine that share each training step of a trial, each with `cpus` and
    `gpus`; the results are the same but for rounding."""
    deterministic: bool = False
    """Equal in every bit when repeated or resumed on the same GPU, too, which is slower there."""

    @field_validator("gpus", mode="before")
    @classmethod
    def _one_gpu_each(cls, value: object) -> object:
        if isinstance(value, int | float) and value > 1:
            raise ValueError(
                f"must be <= 1, as each of `workers` has one at most, but got {value:g}; "
                f"`{{workers: {value:.0f}, gpus: 1}}` trains one trial on {value:.0f}"
            )
        return value

    @model_validator(mode="after")
    def _workers_share_no_gpu(self) -> Self:
        if self.workers > 1 and 0 < self.gpus < 1:
            raise ValueError(
                f"`gpus` must be 0 or 1 with several `workers`, but got {self.gpus:g} and "
                f"{self.workers}"
            )
        return self

    @property
    def total_cpus(self) -> int:
        """Cores of a trial."""
        return self.workers * self.cpus

    @property
    def total_gpus(self) -> float:
        """GPUs of a trial."""
        return self.workers * self.gpus


Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Search(Config):
    """How the holes of a search are filled."""

    trials: int = Field(ge=1, le=MOST_TRIALS)
    """Number of proposals; of `pbt`, members of its population."""
    sampler: AnySampler = "tpe"
    """A sampler of Optuna by its plain name (tpe, random, gp, cmaes, nsgaii, qmc, bruteforce, …), a
    block of that `name` with options as the class takes them, or one of your own; or `pbt`,
    population-based training."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the sampler."""
    repeat_best: int = Field(default=1, ge=0, le=MOST_TRIALS)
    """Best proposals that are repeated with all other seeds at the end."""
    start_with: list[dict[str, Any]] = Field(default=[], max_length=1000)
    """First proposals: values by the names that `--dry-run` shows; the sampler adds the rest."""
    learn_from: str | None = Field(default=None, min_length=1)
    """Name or folder of a former study, or a CSV file, relative to the space's folder: trials that
    the sampler knows from the start, as far as they fit this space."""

    @model_validator(mode="after")
    def _starts_are_proposals(self) -> Self:
        if len(self.start_with) > self.trials:
            raise ValueError(
                f"`start_with` must have at most {self.trials} settings, as `trials` says, but has "
                f"{len(self.start_with)}"
            )
        return self

    objectives: list[str] | None = Field(default=None, min_length=2, max_length=6)
    """What is minimized together: the study's `metric`, other validation errors, and costs
    (seconds, step_seconds, flops, parameters, peak_memory); the result is the Pareto front."""
    at_most: dict[str, Limit] | None = Field(default=None, min_length=1, max_length=6)
    """Limits by the names that `objectives` takes, such as `peak_memory: 8` (GB)."""

    @property
    def population(self) -> PopulationBased | None:
        """Settings of population-based training; None for another sampler."""
        config = as_config(self.sampler)
        return config if isinstance(config, PopulationBased) else None

    def counts(self, epochs: int, copies: int) -> Counts:
        """How many trials there are at most.

        Args:
            epochs: of the longest finetuning.
            copies: how often a proposal that is repeated runs at all.
        """
        repeated = min(self.repeat_best, self.trials)
        trainings = self.trials + repeated * (copies - 1)
        if self.population is None:
            return Counts(trainings)
        generations = len(self.population.bounds(epochs))
        return Counts(trainings, generations, max(1, repeated * copies))

    @property
    def measured(self) -> list[str]:
        """What must be known of every trial beside the study's metric."""
        return list(dict.fromkeys([*(self.objectives or []), *(self.at_most or {})]))

    @model_validator(mode="after")
    def _objectives_differ(self) -> Self:
        names = self.objectives or []
        if len(set(names)) < len(names):
            raise ValueError(f"`objectives` must differ, but got {', '.join(names)}")
        if names and self.learn_from is not None:
            raise ValueError(
                "`learn_from` must be left out with several `objectives`: former trials tell one"
            )
        return self


Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Tune(Config):
    """Settings chosen for every arm of a grid by validation, from the same proposals."""

    each_arm: dict[str, dict[str, list[Any]]] = Field(min_length=1)
    """What is chosen: a distribution by the dotted name of a key of the trial, such as
    `finetune.lr: {loguniform: [1e-4, 1e-2]}`."""
    proposals: int | None = Field(default=None, ge=2, le=1000)
    """Values that every arm tries; left out where all is a choice, of which each is tried."""
    seed: Seed = 100
    """Of the trials that choose; none of the reported seeds."""


class Settings(Config):
    """What stands at the top of a space."""

    question: str = Field(min_length=1, max_length=500)
    """What the study wants to know."""
    metric: Metric = "val_force_rmse"
    """Lower is better; ranks trials, and decides who is stopped early. It is an error of
    `finetune.task`, or one of your own, `val_` and the name of one of its `metrics`."""
    seeds: Annotated[
        list[Seed],
        Field(min_length=1, max_length=1000, json_schema_extra={"uniqueItems": True}),
    ]
    """Every arm runs once with each."""
    baseline: bool = True
    """Run each trial also from scratch, without its first stage."""
    search: Search | None = None
    """Let Optuna propose; without it the study is the full grid of all choices."""
    early_stopping: AnyStopping | None = None
    """Stop bad trials early: by ASHA, or by the `name` of a pruner of Optuna with options as the
    class takes them; without it all run to their end."""
    tune: Tune | None = None
    """Choose settings for every arm of a grid alike, before it runs with all seeds."""
    resources: Resources = Resources()
    trial: dict[str, Any] = Field(exclude=True)
    """One trial; what the study varies is a hole in it."""
    profiles: dict[str, Any] | None = Field(default=None, exclude=True)
    """Changes to all of the above, by name."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` must differ, but got {self.seeds}")
        return self

    @model_validator(mode="after")
    def _objectives_fit(self) -> Self:
        objectives = self.search.objectives if self.search else None
        if objectives and self.metric not in objectives:
            raise ValueError(
                f"`search.objectives` must contain `metric`, {self.metric}, by which tables are "
                f"ordered, but got {', '.join(objectives)}"
            )
        return self

    @model_validator(mode="after")
    def _tuning_is_fair(self) -> Self:
        if self.tune is None:
            return self
        if self.search is not None:
            raise ValueError("`tune` must be left out of a search, which chooses by itself")
        if self.early_stopping is not None:
            raise ValueError(
                "`tune` must be without `early_stopping`, which would stop the arms that learn "
                "slowly"
            )
        if self.tune.seed in self.seeds:
            raise ValueError(
                f"`tune.seed` must be none of the reported seeds, but got {self.tune.seed}"
            )
        return self
