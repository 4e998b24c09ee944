"""What stops trials early, as the user names it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from study.core.config import Config
from study.space.search import optuna_classes


class EarlyStopping(Config):
    """ASHA (arXiv:1810.05934): after each rung of finetuning epochs only the best go on."""

    name: Literal["asha"] = "asha"
    grace_epochs: int = Field(default=5, ge=1)
    """Finetuning epochs that every trial gets."""
    reduction_factor: float = Field(default=3.0, gt=1, le=100)
    """One in so many trials passes a rung; rungs are this factor of epochs apart."""

    @property
    def label(self) -> str:
        """What papers call it."""
        return "ASHA"

    def kept(self, epochs: int) -> float:
        """Share of its epochs that finetuning does at least, on average over a search."""
        survive = 1 / self.reduction_factor
        return survive + (1 - survive) * self.grace_epochs / epochs


class OptunaPruner(Config):
    """A class of `optuna.pruners` by its plain name, with options as the class takes them.

    Its steps are epochs of finetuning.
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1, max_length=64)
    """median, percentile, hyperband, successive_halving, wilcoxon, patient, threshold."""

    @property
    def options(self) -> dict[str, Any]:
        """What the space gives to its constructor."""
        return self.model_extra or {}

    @property
    def label(self) -> str:
        """Its name with its options."""
        options = (f"{key}={value}" for key, value in self.options.items())
        return " ".join([f"Optuna's {self.name} pruner", *options])

    def kept(self, epochs: int) -> float:
        """Share of its epochs that finetuning does at least: nobody knows, so half of the most."""
        del epochs
        return 0.5

    def build(self, epochs: int) -> Any:
        """Make the pruner.

        Args:
            epochs: of the longest finetuning.
        """
        most = {"max_resource": epochs} if optuna_classes.plain(self.name) == "hyperband" else {}
        return optuna_classes.make(self.name, most | self.options, optuna_classes.PRUNERS)


def _form(value: Any) -> str:
    """Tag of the class that a block of settings is of."""
    name = value.get("name", "asha") if isinstance(value, dict) else value.name
    return "<EarlyStopping>" if name == "asha" else "<OptunaPruner>"


AnyStopping = Annotated[
    Annotated[EarlyStopping, Tag("<EarlyStopping>")]
    | Annotated[OptunaPruner, Tag("<OptunaPruner>")],
    Discriminator(_form),
]
