"""What the settings of all data sets have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from study.core.config import Component
from study.datasets.sizes import Sizes

if TYPE_CHECKING:
    from study.datasets.frames import Frames


class DatasetConfig(Component):
    """Settings of a data set; derive from it for a data set of your own."""

    maker: ClassVar[str] = "study.datasets.sources.own_frames"
    """Module that finds, makes and times a data set: `folder_of`, `prepare`, `seconds_to_make`."""
    simulated: ClassVar[bool] = False
    """Made here from nothing but its settings, without any file."""

    def build(self) -> Frames:
        """Read or make all frames; equal settings give equal frames."""
        made: Frames = super().build()
        return made

    def of_trial(self, seed: int) -> Self:
        """What the trial with this seed uses: the same for all, unless it is made for each."""
        del seed
        return self

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return self.name

    @property
    def sizes(self) -> Sizes | None:
        """How much it holds; none if that is not known before it is read or made."""
        return None

    @property
    def rigid(self) -> bool:
        """Whether its labels hold no forces within molecules."""
        return False
