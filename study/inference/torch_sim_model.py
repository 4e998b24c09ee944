"""A study's model in torch-sim, whose integrators and optimizers move many structures at once.

    import torch_sim
    from study.inference.torch_sim_model import TorchSimModel

    torch_sim.integrate(
        structures, TorchSimModel("runs/studies/masking_ratio-quick"), n_steps=1000,
        integrator=torch_sim.nvt_langevin, temperature=300, timestep=0.0005,
    )

Structures are ASE's, time is in ps, temperature in K. It needs `pip install torch-sim-atomistic`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from study.datasets.frames import Frames
from study.inference.predictor import FloatType, load_potential
from study.models.potential import Prediction


class TorchSimModel(ModelInterface):
    """Energies (eV), forces (eV/Å) and stresses (eV/Å³) of a trained model for torch-sim.

    Args:
        model: a study's folder, for its best trial; a trial's folder in `work`; or a file of
            weights there.
        device: torch device.
        precision: float32 as in training, or float64, which long NVE runs need.
        trust: run code that came with the model, though this user has not accepted it before.

    Raises:
        UserError: if there is no trained model, or its code is not to be trusted.
    """

    def __init__(
        self,
        model: str | Path,
        device: str = "cpu",
        precision: FloatType = "float64",
        *,
        trust: bool = False,
    ) -> None:
        super().__init__()
        self.potential = load_potential(model, device, precision, trust=trust)
        self._device, self._dtype = torch.device(device), self.potential.dtype
        self._compute_forces, self._compute_stress = True, self.potential.model.gives_stress
        self._known: set[tuple[bool, frozenset[int]]] = set()

    def forward(self, state: SimState, **_: object) -> dict[str, Tensor]:
        """Predict all structures of a state at once.

        Raises:
            UserError: see `TrainedModel.batches`.
        """
        if not isinstance(state, SimState):
            state = SimState(**state)
        frames = _frames(state)
        self._check(state, frames)
        batch, model = self.potential.graph_of(frames), self.potential.model
        strained = self._compute_stress and state.pbc
        predicted: Prediction = model.with_stress(batch) if strained else model(batch)
        energies = predicted.energy.detach().double() + model.reference_energy(batch)
        found = {"energy": energies.to(self._dtype), "forces": predicted.forces.detach()}
        if predicted.stress is not None:
            found["stress"] = predicted.stress.detach()
        return found

    def _check(self, state: SimState, frames: Frames) -> None:
        """Check for elements and cells that the model does not know, once and not in each step."""
        kind = (bool(state.pbc), frozenset(np.unique(frames.numbers).tolist()))
        if kind not in self._known:
            self.potential.check(state.to_atoms())
            self._known.add(kind)


def _frames(state: SimState) -> Frames:
    """A state's structures, without labels; torch-sim has lattice vectors as columns."""
    arrays = (state.atomic_numbers, state.positions, state.cell.mT, state.n_atoms_per_system)
    numbers, positions, cells, sizes = (each.detach().cpu().numpy() for each in arrays)
    return Frames(
        numbers=numbers,
        positions=positions.astype(np.float64),
        forces=np.zeros(positions.shape),
        offsets=np.cumsum([0, *sizes]),
        cells=cells.astype(np.float64),
        energies=np.zeros(len(sizes)),
        groups=np.zeros(len(sizes), np.int64),
        pbc=np.full((len(sizes), 3), state.pbc),
    )
