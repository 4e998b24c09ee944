"""What the settings of all tasks have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from study.core.config import Component

if TYPE_CHECKING:
    from study.datasets.sizes import Sizes
    from study.graphs.graph_set import GraphSet
    from study.tasks.metrics import Metric
    from study.tasks.task import Task


class TaskConfig(Component):
    """Settings of a task; derive from it for a pretraining task of your own."""

    supervised: ClassVar[bool] = False
    """Learns from labels; finetuning does, pretraining may on another data set."""
    trains_potential: ClassVar[bool] = False
    """What it trains predicts energies with forces."""

    def build(self, graphs: GraphSet) -> Task:
        """The task over all frames of `graphs`; see `study.tasks.task`."""
        made: Task = super().build(graphs)
        return made

    @property
    def label(self) -> str:
        """The task in a few words."""
        return self.name

    @property
    def labels(self) -> tuple[str, ...]:
        """What the frames must be labelled with."""
        return ()

    @property
    def errors(self) -> tuple[str, ...]:
        """Names of what it measures on labels."""
        return ()

    @property
    def embeds_mask(self) -> bool:
        """Whether its atoms get a mask embedding, be they masked or not."""
        return False

    @property
    def gives_forces(self) -> bool:
        """Whether it tells the network forces, which the model has to take as input."""
        return False

    def pretexts(self, place: str) -> list[tuple[str, TaskConfig]]:
        """Every task without labels that it consists of, with its place.

        Args:
            place: of this task, as dotted keys.
        """
        return [(place, self)]

    def check_frames(self, place: str, sizes: Sizes) -> None:
        """Refuse a data set that the task cannot work on.

        Args:
            place: of this task, as dotted keys.
            sizes: of the data set.

        Raises:
            ValueError: naming the key to change.
        """


class MetricConfig(Component):
    """Settings of an error of predictions; derive from it for one of your own."""

    def build(self) -> Metric:
        """A function of predictions and labels; see `study.tasks.metrics`."""
        made: Metric = super().build()
        return made


class PretextConfig(TaskConfig):
    """What the shipped tasks without labels have in common: each has a placebo."""

    placebo: bool = False
    """Random targets instead of the true ones: same compute, nothing to learn."""
