"""What every model can do: energies, forces, and one vector per atom."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

MAX_ATOMIC_NUMBER = 118


@dataclass(frozen=True)
class Prediction:
    """Energy and forces of a batch.

    Args:
        energy: (G,) eV, relative to the sum of the atoms' reference energies.
        forces: (N, 3) eV/Å.
    """

    energy: Tensor
    forces: Tensor


class ConservativePotential(nn.Module):
    """A potential whose forces are the negative gradient of its energy.

    A subclass gives `atomic_energies` and ends in a `readout`. The scale (eV) multiplies what the
    network puts out; the reference energies are float64, because total DFT energies exceed float32.
    """

    scale: Tensor
    reference: Tensor
    readout: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("reference", torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.float64))

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """(N,) raw energy of each atom, in units of `scale`."""
        raise NotImplementedError

    def forward(self, graph: Data) -> Prediction:
        """Energies and forces = −∂E/∂x; forces carry a graph while training."""
        positions = graph.pos.detach().requires_grad_()
        atomic = self.scale * self.atomic_energies(graph, positions)
        energy = sum_per_graph(atomic, graph)
        return Prediction(energy, self._descend(atomic, positions))

    def vectors(self, graph: Data) -> Tensor:
        """(N, 3) one vector per atom for pretext tasks: −∂E/∂x in units of `scale` per Å."""
        positions = graph.pos.detach().requires_grad_()
        return self._descend(self.atomic_energies(graph, positions), positions)

    def take_over(self, weights: dict[str, Tensor], *, readout: bool) -> None:
        """Load pretrained weights, with or without those of the readout."""
        mine = {} if readout else self.state_dict()
        kept = {name: value for name, value in mine.items() if name.startswith("readout.")}
        self.load_state_dict(weights | kept)

    def silence(self) -> None:
        """Let the last layer put out zero: the potential predicts the mean energy, and no force.

        A random readout makes large errors of what pretraining has put into the features, and
        undoing them costs more than pretraining gained.
        """
        last = self.readout[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def reference_energy(self, graph: Data) -> Tensor:
        """(G,) float64 eV, what `Prediction.energy` has to be added to."""
        return sum_per_graph(self.reference[graph.z], graph)

    def _descend(self, atomic: Tensor, positions: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(atomic.sum(), positions, create_graph=self.training)
        return -gradient


def sum_per_graph(values: Tensor, graph: Data) -> Tensor:
    """(G,) sums of per-atom values; a single graph without `batch` is one graph."""
    batch = graph.batch if graph.batch is not None else torch.zeros_like(graph.z)
    return values.new_zeros(graph.num_graphs if "ptr" in graph else 1).index_add(0, batch, values)
