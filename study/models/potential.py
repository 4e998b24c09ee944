"""What every model can do: energies, forces, and one vector per atom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

if TYPE_CHECKING:
    from study.models.config import Network

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


class Potential(nn.Module):
    """What every model has in common: a scale, reference energies, and heads.

    The scale (eV) multiplies what the network puts out; the reference energies, of each element and
    of a frame as a whole, are float64, because total DFT energies exceed float32. Every head is an
    attribute of a subclass, named in `heads`, and ends in a linear layer.
    """

    heads: tuple[str, ...] = ("readout",)
    after_layers: tuple[str, ...] = ()
    """Modules between the last of `layers` and the heads."""
    compilable: bool = True
    """Its gradients can be traced, and are the same when compiled."""
    conservative: bool
    """Forces are the negative gradient of the energy."""
    equivariant: bool
    """Rotating atoms and cell rotates forces and vectors, and leaves energies as they are."""

    settings: Network
    scale: Tensor
    reference: Tensor
    frame_reference: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("reference", torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.float64))
        self.register_buffer("frame_reference", torch.zeros((), dtype=torch.float64))

    def forward(self, graph: Data) -> Prediction:
        """Energies and forces of a batch."""
        raise NotImplementedError

    def vectors(self, graph: Data) -> Tensor:
        """(N, 3) one vector per atom, for pretext tasks."""
        raise NotImplementedError

    def scalars(self, graph: Data) -> Tensor:
        """(N,) one number per atom, what energies are made of, in units of `scale`."""
        raise NotImplementedError

    def load_pretrained(self, state_dict: dict[str, Tensor], *, include_heads: bool) -> None:
        """Load pretrained weights; without `include_heads` the heads keep their own."""
        own = {} if include_heads else self.state_dict()
        prefixes = tuple(f"{head}." for head in self.heads)
        heads = {name: value for name, value in own.items() if name.startswith(prefixes)}
        self.load_state_dict(state_dict | heads)

    def depth(self, name: str) -> int:
        """How far a weight is from the output.

        Args:
            name: as in `named_parameters`.

        Returns:
            0 for heads, 1 for the last layer and what comes after it, one more for each layer
            before; most for embeddings and all else that comes before the layers.
        """
        module, _, inner = name.partition(".")
        if module in self.heads:
            return 0
        if module in self.after_layers:
            return 1
        layers, number = self.settings.layers, inner.partition(".")[0]
        numbered = module == "layers" and number.isdigit()
        return max(layers - int(number), 1) if numbered else layers + 1

    def freeze_all_but_last(self, depth: int) -> None:
        """Let nothing learn that is further from the output; see `depth`."""
        for name, weights in self.named_parameters():
            weights.requires_grad_(self.depth(name) <= depth)

    def zero_init_readout(self) -> None:
        """Let the heads put out zero: the potential predicts the mean energy, and no force.

        A random head makes large errors of what pretraining has put into the features, and
        undoing them costs more than pretraining gained.
        """
        for head in self.heads:
            last = self.get_submodule(head)[-1]  # type: ignore[index]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def reference_energy(self, graph: Data) -> Tensor:
        """(G,) float64 eV, what `Prediction.energy` has to be added to."""
        return self.frame_reference + sum_per_graph(self.reference[graph.z], graph)


class ConservativePotential(Potential):
    """A potential whose forces are the negative gradient of its energy.

    A subclass gives `atomic_energies`, with the head `readout`.
    """

    conservative = True
    equivariant = True

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """(N,) raw energy of each atom, in units of `scale`."""
        raise NotImplementedError

    def forward(self, graph: Data) -> Prediction:
        """Energies and forces = −∂E/∂x; forces carry a graph while training."""
        positions = graph.pos.detach().requires_grad_()
        atomic = self.scale * self.atomic_energies(graph, positions)
        energy = sum_per_graph(atomic, graph)
        return Prediction(energy, self._negative_gradient(atomic, positions))

    def scalars(self, graph: Data) -> Tensor:
        """(N,) the readout, without forces."""
        return self.atomic_energies(graph, graph.pos)

    def vectors(self, graph: Data) -> Tensor:
        """(N, 3) −∂E/∂x in units of `scale` per Å."""
        positions = graph.pos.detach().requires_grad_()
        return self._negative_gradient(self.atomic_energies(graph, positions), positions)

    def _negative_gradient(self, atomic: Tensor, positions: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(atomic.sum(), positions, create_graph=self.training)
        return -gradient


class DirectPotential(Potential):
    """A potential with a head for energies and another one for vectors, forces among them.

    Its forces are no gradient of its energy. A subclass gives `features`, and the heads `readout`
    (F → 1) and `vector_readout` (F → 3).
    """

    heads = ("readout", "vector_readout")
    conservative = False
    readout: nn.Sequential
    vector_readout: nn.Sequential

    def features(self, graph: Data) -> Tensor:
        """(N, F) what the network knows of each atom."""
        raise NotImplementedError

    def forward(self, graph: Data) -> Prediction:
        """Energies summed over atoms, forces (eV/Å) from their own head."""
        features = self.features(graph)
        return Prediction(self._energy(features, graph), self.scale * self.vector_readout(features))

    def scalars(self, graph: Data) -> Tensor:
        """(N,) the readout."""
        return self.readout(self.features(graph)).squeeze(-1)

    def vectors(self, graph: Data) -> Tensor:
        """(N, 3) the vector head, in units of `scale` per Å."""
        return self.vector_readout(self.features(graph))

    def _energy(self, features: Tensor, graph: Data) -> Tensor:
        """(G,) eV about the reference energy."""
        return sum_per_graph(self.scale * self.readout(features).squeeze(-1), graph)


def sum_per_graph(values: Tensor, graph: Data) -> Tensor:
    """(G,) sums of per-atom values; a single graph without `batch` is one graph."""
    batch = graph.batch if graph.batch is not None else torch.zeros_like(graph.z)
    return values.new_zeros(graph.num_graphs if "ptr" in graph else 1).index_add(0, batch, values)
