"""The networks and losses of arXiv:2402.15921 as its released code has them, written anew.

Plain functions of tensors in the words of that code's mathematics: pairs by minimum images in an
orthorhombic box, one matrix on concatenated inputs, complex harmonics. `study` computes nothing
here. Weights are tensors by name, `NAME.w` and `NAME.b` of linear maps.

Left out, as `study` does not offer them: the wrapped absolute positions that GNS takes beside the
element (their columns are zero here), the nine properties of an element that ForceNet starts from
(here a vector for oxygen, which it takes every atom for) and its table of radii, and 1e-8 that is
added to lengths of GNS and ForceNet unless `EXTRA` is set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, cosine_similarity, l1_loss, layer_norm, mse_loss, silu

Weights = dict[str, Tensor]
EXTRA = 1e-8
"""Added to lengths by the released code: Å in ForceNet, units of the cutoff in GNS."""
RADIUS = float(torch.tensor(0.63))
"""Å, of oxygen, in single precision: the covalent one of `study`; the released table has empirical
radii."""


@dataclass(frozen=True)
class Box:
    """Frames in orthorhombic boxes.

    Args:
        z: (N,) atomic numbers.
        pos: (N, 3) Å.
        frame: (N,) of each atom.
        sides: (G, 3) Å.
        mask: (N,) 1 for atoms that have lost a neighbour; None where nothing is masked.
    """

    z: Tensor
    pos: Tensor
    frame: Tensor
    sides: Tensor
    mask: Tensor | None = None

    def wrapped(self, vectors: Tensor, atoms: Tensor) -> Tensor:
        """Minimum images of vectors (E, 3) between atoms (E,) and others of their frames."""
        side = self.sides[self.frame[atoms]]
        return torch.remainder(vectors + side / 2, side) - side / 2

    def pairs(self, cutoff: float) -> tuple[Tensor, Tensor]:
        """All ordered pairs (E,), (E,) of atoms of one frame whose minimum images are close."""
        count = len(self.pos)
        first, second = torch.cartesian_prod(torch.arange(count), torch.arange(count)).T
        alike = (self.frame[first] == self.frame[second]) & (first != second)
        first, second = first[alike], second[alike]
        apart = self.wrapped(self.pos[first] - self.pos[second], first).detach()
        close = apart.norm(dim=1) < cutoff
        return first[close], second[close]

    def sums(self, values: Tensor) -> Tensor:
        """(G, F) sums of (N, F) over frames."""
        return values.new_zeros(len(self.sides), values.shape[1]).index_add(0, self.frame, values)


def linear(weights: Weights, name: str, inputs: Tensor) -> Tensor:
    """A linear map, with a bias if there is one."""
    return torch.nn.functional.linear(inputs, weights[f"{name}.w"], weights.get(f"{name}.b"))


def start(weights: Weights, box: Box) -> Tensor:
    """Embeddings (N, F) of elements, and of masked and unmasked atoms where there are any."""
    features = weights["element"][box.z]
    return features if box.mask is None else features + weights["mask"][box.mask]


def egnn(
    weights: Weights, box: Box, layers: int, cutoff: float, scale: float = 1, offset: float = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Energies (G,) that are scaled and shifted atom by atom, −∂E/∂x, and moves (N, 3)."""
    begin = box.pos.detach().requires_grad_()
    x, h = begin, start(weights, box)
    i, j = box.pairs(cutoff)
    for layer in range(layers):
        at = f"{layer}."
        apart = box.wrapped(x[i] - x[j], i)
        square = apart.pow(2).sum(1, keepdim=True)
        direction = apart / (square.sqrt().detach() + 1e-8)
        message = linear(weights, at + "edge0", torch.cat([h[i], h[j], square], 1))
        message = silu(linear(weights, at + "edge1", silu(message)))
        step = direction * linear(
            weights, at + "move1", silu(linear(weights, at + "move0", message))
        )
        number = torch.zeros_like(x).index_add(0, i, torch.ones_like(step)).clamp(min=1)
        x = x + torch.zeros_like(x).index_add(0, i, step) / number
        heard = torch.zeros_like(h).index_add(0, i, message)
        inner = silu(linear(weights, at + "node0", torch.cat([h, heard], 1)))
        h = h + linear(weights, at + "node1", inner)
    h = layer_norm(h, h.shape[1:], weights["norm.w"], weights["norm.b"])
    atomic = linear(weights, "head1", silu(linear(weights, "head0", h)))
    energy = box.sums(atomic * scale + offset)[:, 0]
    (slope,) = torch.autograd.grad(energy.sum(), begin, create_graph=True)
    return energy, -slope, x - begin


def three(weights: Weights, name: str, inputs: Tensor, *, norm: bool = True) -> Tensor:
    """GNS's MLP with two hidden layers, ReLU, and mostly a layer norm behind."""
    hidden = torch.relu(linear(weights, name + "0", inputs))
    hidden = torch.relu(linear(weights, name + "1", hidden))
    found = linear(weights, name + "2", hidden)
    if not norm:
        return found
    return layer_norm(found, found.shape[1:], weights[name + ".norm.w"], weights[name + ".norm.b"])


def gns(
    weights: Weights, box: Box, layers: int, cutoff: float, extra: float = 0
) -> tuple[Tensor, Tensor]:
    """Energies (G,) and vectors (N, 3); edge states double from step to step."""
    sender, receiver = box.pairs(cutoff)
    apart = box.wrapped(box.pos[sender] - box.pos[receiver], sender) / cutoff
    length = apart.norm(dim=1, keepdim=True) + extra
    nodes = three(weights, "nodes", start(weights, box))
    edges = three(weights, "edges", torch.cat([apart, length], 1))
    for layer in range(layers):
        inputs = torch.cat([nodes[receiver], nodes[sender], edges], 1)
        told = three(weights, f"{layer}.edge", inputs)
        heard = torch.zeros_like(nodes).index_add(0, receiver, told)
        nodes = nodes + three(weights, f"{layer}.node", torch.cat([heard, nodes], 1))
        edges = edges + edges
    energy = three(weights, "energy", nodes, norm=False)
    return box.sums(energy)[:, 0], three(weights, "force", nodes, norm=False)


def harmonics(unit: Tensor) -> Tensor:
    """(E, 9) for n < 3: those with m = 0, then real and imaginary parts of those with m > 0.

    Orthonormal with the phase of Condon and Shortley, as scipy has them.
    """
    x, y, z = unit.T
    zero = [0.5 / math.sqrt(math.pi) * torch.ones_like(z), math.sqrt(3 / (4 * math.pi)) * z]
    zero.append(math.sqrt(5 / (16 * math.pi)) * (3 * z * z - 1))
    one, two = math.sqrt(3 / (8 * math.pi)), math.sqrt(15 / (8 * math.pi))
    real = [-one * x, -two * x * z, two / 2 * (x * x - y * y)]
    imaginary = [-one * y, -two * y * z, two * x * y]
    return torch.stack([*zero, *real, *imaginary], 1)


def normed(weights: Weights, name: str, inputs: Tensor) -> Tensor:
    """ForceNet's MLP with a hidden layer that is normalized over the batch."""
    hidden = linear(weights, name + "0", inputs)
    hidden = batch_norm(
        hidden, None, None, weights[name + ".norm.w"], weights[name + ".norm.b"], training=True
    )
    return linear(weights, name + "1", silu(hidden))


def forcenet(
    weights: Weights,
    box: Box,
    layers: int,
    cutoff: float,
    scale: float = 1,
    offset: float = 0,
    extra: float = 0,
) -> tuple[Tensor, Tensor]:
    """Energies (G,) with one bias a frame, and vectors (N, 3)."""
    source, target = box.pairs(cutoff)
    apart = box.wrapped(box.pos[source] - box.pos[target], source)
    length = apart.norm(dim=1) + extra
    fading = torch.cos(0.5 * math.pi * length / cutoff)[:, None]
    told = torch.stack([length, length - RADIUS, length - RADIUS, length - 2 * RADIUS], 1) / cutoff
    told = torch.where(told < 1e-3, 1e-3, told)
    frequencies = weights["mix.w"].shape[1] // 4
    waves = torch.cat([torch.sin(told * 1.1**power) for power in range(frequencies)], 1)
    radial = linear(weights, "mix", waves)
    angular = harmonics(apart / length[:, None])
    basis = torch.einsum("ik,ij->ikj", angular, radial).flatten(1)
    h = weights["element"].expand(len(box.z), -1)
    h = h if box.mask is None else h + weights["mask"][box.mask]
    for layer in range(layers):
        at = f"{layer}."
        inputs = torch.cat([linear(weights, at + "basis", basis), h[source], h[target]], 1)
        hidden = silu(linear(weights, at + "edge0", inputs))
        filters = linear(weights, at + "edge2", silu(linear(weights, at + "edge1", hidden)))
        value = linear(weights, at + "value", h)
        heard = torch.zeros_like(h).index_add(0, target, value[source] * filters * fading)
        h = h + normed(weights, at + "node", heard + weights[at + "own"] * value)
    h = silu(linear(weights, "last", h))
    energy = linear(weights, "energy", box.sums(h * scale + offset))[:, 0]
    return energy, normed(weights, "force", h) * scale


def energy_force_loss(
    energy: Tensor, force: Tensor, labels: tuple[Tensor, Tensor], mean: float, std: float
) -> Tensor:
    """1 · L1 of energies and 500 · L1 of forces, both in units of the energies' deviation."""
    true_energy, true_force = labels
    of_forces = l1_loss(500 * force, 500 * true_force / std)
    return l1_loss(energy, (true_energy - mean) / std) + of_forces


def masking_loss(vectors: Tensor, box: Box, towards: Tensor) -> Tensor:
    """1 − the mean cosine between vectors and displacements of masked atoms, of any length."""
    assert box.mask is not None
    return 1 - cosine_similarity(vectors[box.mask == 1], towards, dim=-1).mean()


def denoising_loss(vectors: Tensor, noise: Tensor) -> Tensor:
    """Mean square of vectors less the noise itself, Å."""
    return mse_loss(vectors, noise)
