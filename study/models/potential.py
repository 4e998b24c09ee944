"""Base classes of all potentials: energies, forces, stresses, and one vector per atom."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from study.core.errors import UserError

if TYPE_CHECKING:
    from study.models.config import ModelConfig

MAX_ATOMIC_NUMBER = 118


@dataclass(frozen=True)
class Prediction:
    """Predicted energy, forces and, where it is asked for, stress of a batch.

    Args:
        energy: (G,) eV, relative to the sum of the atoms' reference energies.
        forces: (N, 3) eV/Å.
        stress: (G, 3, 3) eV/Å³, positive under tension; NaN of frames without a volume.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor | None = None


class Potential(nn.Module):
    """Base class of all models: an output scale, reference energies, and heads.

    The scale (eV) multiplies the outputs of the network. The reference energies, one per element
    and one per frame, are float64, because total DFT energies exceed the precision of float32.
    Every head is a module below a subclass, is named in `heads`, and ends in a linear map.
    """

    heads: tuple[str, ...] = ("readout",)
    """Names of the modules that turn features into what is predicted, such as `net.readout`."""
    after_layers: tuple[str, ...] = ()
    """Names of the modules between the last of `blocks` and the heads."""
    independent_frames: bool = True
    """Whether no frame of a batch changes another's prediction in training; batch norm does."""
    compilable: bool = True
    """Whether its gradients can be traced, and equal the eager ones when compiled."""
    needs_cell: bool = False
    """Whether it looks at cells; otherwise neighbours with their shifts are enough."""
    conservative: bool
    """Whether forces are the negative gradient of the energy."""
    equivariant: bool
    """Whether forces and vectors rotate with atoms and cell, and energies are invariant."""

    settings: ModelConfig
    scale: Tensor
    reference: Tensor
    frame_reference: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("reference", torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.float64))
        self.register_buffer("frame_reference", torch.zeros((), dtype=torch.float64))

    @property
    def gives_stress(self) -> bool:
        """Whether it has `with_stress`."""
        return False

    def forward(self, graph: Data) -> Prediction:
        """Predict energies (G,) eV and forces (N, 3) eV/Å of a batch."""
        raise NotImplementedError

    def with_stress(self, graph: Data) -> Prediction:
        """Predict the stress, too, if the model `gives_stress`."""
        raise NotImplementedError

    def vectors(self, graph: Data) -> Tensor:
        """Predict (N, 3) one vector per atom, for pretext tasks."""
        raise NotImplementedError

    def scalars(self, graph: Data) -> Tensor:
        """Predict (N,) one number per atom, whose sum is the energy, in units of `scale`."""
        raise NotImplementedError

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The layers in their order, as many as `settings.layers`; by default those of `layers`.

        They are what `trainable` and `layer_decay` count, which are refused where there are none.
        Several modules that make one layer are one block, `nn.ModuleList([one, other])`.
        """
        layers = getattr(self, "layers", None)
        return list(layers) if isinstance(layers, nn.ModuleList) else []

    def require_blocks(self, key: str) -> None:
        """Refuse a setting that counts layers if no layers are known.

        Raises:
            UserError: if there are no blocks.
        """
        if not self.blocks:
            raise UserError(
                f"`{key}` counts the layers of a model, but {type(self).__name__} names none; call "
                f"its ModuleList `layers`, or define its property `blocks`, or leave `{key}` out"
            )

    def load_pretrained(self, state_dict: dict[str, Tensor], *, include_heads: bool) -> None:
        """Load pretrained weights; without `include_heads` the heads keep their own."""
        own = {} if include_heads else self.state_dict()
        prefixes = tuple(f"{head}." for head in self.heads)
        heads = {name: value for name, value in own.items() if name.startswith(prefixes)}
        self.load_state_dict(state_dict | heads)

    def layer_depth(self, name: str) -> int:
        """Count the layers between a parameter and the output.

        Args:
            name: as in `named_parameters`.

        Returns:
            0 for heads; 1 for the last of `blocks` and the modules after it; one more for each
            earlier block; blocks + 1 for embeddings and everything else before the blocks.
        """
        for depth, modules in enumerate((self.heads, self.after_layers)):
            if name.startswith(tuple(f"{module}." for module in modules)):
                return depth
        weights = self.get_parameter(name)
        for depth, block in enumerate(reversed(self.blocks), start=1):
            if any(weights is each for each in block.parameters()):
                return depth
        return len(self.blocks) + 1

    def freeze_all_but_last(self, n_layers: int) -> None:
        """Freeze all parameters but the heads and the last `n_layers`; see `layer_depth`.

        Raises:
            UserError: if there are no blocks to count.
        """
        if n_layers:
            self.require_blocks("trainable")
        for name, weights in self.named_parameters():
            weights.requires_grad_(self.layer_depth(name) <= n_layers)

    def zero_init_readout(self) -> None:
        """Zero the last weights of each head, so that energies and forces start at zero.

        The potential then predicts the reference energy. A random head would turn pretrained
        features into large errors, and undoing them costs more than pretraining gains.

        Raises:
            UserError: if a head has no weights.
        """
        for head in self.heads:
            parts = [
                [*part.parameters(recurse=False)] for part in self.get_submodule(head).modules()
            ]
            weighted = [weights for weights in parts if weights]
            if not weighted:
                raise UserError(
                    f"the head `{head}` of {type(self).__name__} has no weights, so it cannot "
                    "start at zero; name modules with weights in `heads`"
                )
            for weights in weighted[-1]:
                nn.init.zeros_(weights)

    def reference_energy(self, graph: Data) -> Tensor:
        """Reference energies (G,) eV, float64, to which `Prediction.energy` is added."""
        return self.frame_reference + sum_per_graph(self.reference[graph.z], graph)


class ConservativePotential(Potential):
    """A potential whose forces are the negative gradient of its energy.

    A subclass implements `atomic_energies`, with the head `readout`.
    """

    conservative = True
    equivariant = True

    @property
    def gives_stress(self) -> bool:
        """Whether the energy depends on cells by the shifts of edges alone."""
        return self.conservative and not self.needs_cell

    def atomic_energies(self, graph: Data, positions: Tensor) -> Tensor:
        """Predict the energy (N,) of each atom, in units of `scale`."""
        raise NotImplementedError

    def forward(self, graph: Data) -> Prediction:
        """Predict energies and forces −∂E/∂x; in training mode forces can be differentiated."""
        positions = graph.pos.detach().requires_grad_()
        atomic = self.scale * self.atomic_energies(graph, positions)
        energy = sum_per_graph(atomic, graph)
        return Prediction(energy, self._negative_gradient(atomic, positions))

    def with_stress(self, graph: Data) -> Prediction:
        """Predict energies, forces −∂E/∂x, and the stress: ∂E/∂(strain) over the volume.

        A strain ε moves atoms x and lattice translations s of edges to x (1 + ε) and s (1 + ε), so
        that ∂E/∂ε is the sum of x ⊗ ∂E/∂x over atoms and of s ⊗ ∂E/∂s over edges.
        """
        positions, shift = (each.detach().requires_grad_() for each in (graph.pos, graph.shift))
        moved = copy(graph)
        moved.shift = shift
        atomic = self.scale * self.atomic_energies(moved, positions)
        by_position, by_shift = torch.autograd.grad(
            atomic.sum(), (positions, shift), create_graph=self.training
        )
        virial = torch.zeros_like(graph.cell)
        virial = virial.index_add(0, graph.batch, _outer(graph.pos, by_position))
        owner = graph.batch[graph.edge_index[1]]
        virial = virial.index_add(0, owner, _outer(graph.shift, by_shift))
        stress = _per_volume((virial + virial.transpose(1, 2)) / 2, graph.cell)
        return Prediction(sum_per_graph(atomic, graph), -by_position, stress)

    def scalars(self, graph: Data) -> Tensor:
        """Predict (N,) the energy of each atom without forces, in units of `scale`."""
        return self.atomic_energies(graph, graph.pos)

    def vectors(self, graph: Data) -> Tensor:
        """Predict (N, 3) −∂E/∂x, in units of `scale` per Å."""
        positions = graph.pos.detach().requires_grad_()
        return self._negative_gradient(self.atomic_energies(graph, positions), positions)

    def _negative_gradient(self, atomic: Tensor, positions: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(atomic.sum(), positions, create_graph=self.training)
        return -gradient


class DirectPotential(Potential):
    """A potential with separate heads for energies and for forces.

    Its forces are not the gradient of its energy. A subclass implements `features`, and has the
    heads `readout` (F → 1) and `vector_readout` (F → 3), modules that are called with them.
    """

    heads = ("readout", "vector_readout")
    conservative = False
    equivariant = False
    readout: nn.Module
    vector_readout: nn.Module

    def features(self, graph: Data) -> Tensor:
        """Compute the features (N, F) of all atoms, or whatever the heads take."""
        raise NotImplementedError

    def forward(self, graph: Data) -> Prediction:
        """Predict energies (eV) as sums over atoms, and forces (eV/Å) from their own head."""
        features = self.features(graph)
        return Prediction(self._energy(features, graph), self.scale * self.vector_readout(features))

    def scalars(self, graph: Data) -> Tensor:
        """Predict (N,) the energy of each atom, in units of `scale`."""
        energies: Tensor = self.readout(self.features(graph)).squeeze(-1)
        return energies

    def vectors(self, graph: Data) -> Tensor:
        """Predict (N, 3) the output of the vector head, in units of `scale` per Å."""
        vectors: Tensor = self.vector_readout(self.features(graph))
        return vectors

    def _energy(self, features: Tensor, graph: Data) -> Tensor:
        """Sum the energies of each graph: (G,) eV, relative to the reference energy."""
        return sum_per_graph(self.scale * self.readout(features).squeeze(-1), graph)


def _outer(one: Tensor, other: Tensor) -> Tensor:
    """Outer products (R, 3, 3) of rows (R, 3)."""
    return one[:, :, None] * other[:, None, :]


def _per_volume(virial: Tensor, cell: Tensor) -> Tensor:
    """Divide (G, 3, 3) by the volumes of the cells; NaN where a frame has none."""
    first, second, third = cell.unbind(1)
    cross = second.roll(-1, 1) * third.roll(1, 1) - second.roll(1, 1) * third.roll(-1, 1)
    volume = (first * cross).sum(dim=1).abs()[:, None, None]
    exists = volume > 0
    return torch.where(exists, virial / torch.where(exists, volume, 1.0), torch.nan)


def sum_per_graph(values: Tensor, graph: Data) -> Tensor:
    """Sum per-atom values (N,) to (G,); without `batch` all atoms are one graph."""
    batch = batch_of(graph)
    return values.new_zeros(graph.num_graphs if "ptr" in graph else 1).index_add(0, batch, values)


def batch_of(graph: Data) -> Tensor:
    """Graph (N,) of each atom; without `batch` all atoms are one graph."""
    return graph.batch if graph.batch is not None else torch.zeros_like(graph.z)
