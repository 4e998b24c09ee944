"""What the command lines of `study.predict` and `study.dynamics` ask for.

Checks of these values import nothing heavy, so that bad ones are answered at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from study.core.errors import UserError
from study.core.paths import Address


@dataclass(frozen=True)
class PredictOptions:
    """What to predict, and where to put it.

    Args:
        model: folder of a study, or of one trial's work.
        structures: file of structures; the test frames of all trials when left out.
        out: file for structures with what is predicted.
        export: file for the model as a program.
        log: whether to log the model to its run.
        register: name under which to register it in MLflow.
        device: torch device.
        precision: of the predictions.
        json: whether to print JSON lines.
        trust: whether code that came with the model may run.
        tracking_uri: of MLflow; the recorded one when left out.
    """

    model: Path
    structures: Path | Address | None
    out: Path | None
    export: Path | None
    log: bool
    register: str | None
    device: str
    precision: Literal["float32", "float64"]
    json: bool
    trust: bool
    tracking_uri: str | None

    def check(self) -> None:
        """Refuse to overwrite files.

        Raises:
            UserError: if one exists.
        """
        if self.structures is None:
            return
        for option, path in (("--out", self.out), ("--export", self.export)):
            if path and path.exists():
                raise UserError(
                    f"{option} {path}: must not exist yet; remove it, or name another file"
                )


@dataclass(frozen=True)
class DynamicsOptions:
    """What to move, how, and for how long.

    Args:
        model: folder of a study, or of one trial's work.
        structure: file whose first structure moves.
        out: file for the energies.
        picoseconds: length of the run.
        timestep: fs.
        temperature: of the first velocities, K.
        seed: of the first velocities.
        device: torch device.
        trust: whether code that came with the model may run.
    """

    model: Path
    structure: Path | Address
    out: Path
    picoseconds: float
    timestep: float
    temperature: float
    seed: int
    device: str
    trust: bool

    @property
    def steps(self) -> int:
        """Number of timesteps."""
        return round(1000 * self.picoseconds / self.timestep)

    def check(self) -> None:
        """Refuse values that give no dynamics, and to overwrite a file.

        Raises:
            UserError: naming the option.
        """
        for name in ("picoseconds", "timestep", "temperature"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"--{name}: must be above 0, but got {value}")
        if self.seed < 0:
            raise UserError(f"--seed: must be at least 0, but got {self.seed}")
        if self.steps < 2:
            raise UserError(
                f"--picoseconds: must be at least two steps of --timestep {self.timestep:g} fs, "
                f"but got {self.picoseconds:g}"
            )
        if self.out.exists():
            raise UserError(
                f"--out {self.out}: must not exist yet; remove it, or name another file"
            )
