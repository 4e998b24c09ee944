"""Our models in the released reading beside the released code's mathematics, by copied weights.

`python -m tests.models.parity` prints how far they are apart. Our parameters are functions of the
released code's, so that gradients are compared with respect to the latter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import Batch

from study.core.quantities.units import KJ_PER_MOL
from study.core.seeding import seeded
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN, GNS, ForceNet, ModelConfig
from study.models.potential import Potential
from study.tasks.config import Denoising as DenoisingSettings
from study.tasks.config import EnergyForces as EnergyForcesSettings
from study.tasks.config import Masking as MaskingSettings
from study.tasks.denoising import Denoising
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.tasks.masking import Masking
from study.tasks.task import Term
from tests.benchmarks.water import water_box
from tests.models import released
from tests.models.released import Box, Weights

F, LAYERS, CUTOFF, FREQUENCIES, ELEMENTS = 8, 3, 3.4, 6, 119
FRAMES = torch.arange(2)
SIZES = {"hidden": F, "layers": LAYERS, "cutoff": CUTOFF, "mask_init": "normal"}
SETTINGS: dict[str, ModelConfig] = {
    "egnn": EGNN(
        name="egnn", radial="squared", envelope="hard", final_norm=True, mean="count",
        coordinate_norm="detached", rewrap=True, **SIZES,
    ),
    "gns": GNS(name="gns", envelope="hard", edge_update="legacy", init="torch", **SIZES),
    "forcenet": ForceNet(
        name="forcenet", envelope="cosine", max_neighbors=None, species_blind=True,
        energy_offset="channels", energy_bias="frame", lengths="clamped", init="xavier",
        frequencies=FREQUENCIES, **SIZES,
    ),
}  # fmt: skip
"""The models of `search_spaces/text_or_code.yaml` in the released reading, but small."""
LABELS = {
    "loss": "l1",
    "energy_weight": 1.0,
    "force_weight": 500.0,
    "error_unit": "energy",
    "energy_statistics": "per_frame",
    "mask_embedding": "none",
}
TWICE = {
    "energy_reference": "frame_and_atoms",
    "output_scale": "energy_variance",
    "energy_unit": "kJ/mol",
}
ONCE = {"energy_reference": "per_frame", "output_scale": "energy_std"}
"""GNS knows no statistics of its own."""


def random_weights(name: str, generator: torch.Generator) -> Weights:
    """Weights of the released code's networks."""

    def normal(*shape: int, size: float = 1.0) -> Tensor:
        return size * torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights: Weights = {}

    def add(at: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        weights[f"{at}.w"] = normal(outputs, inputs, size=inputs**-0.5)
        if bias:
            weights[f"{at}.b"] = normal(outputs, size=0.3)

    def add_norm(at: str) -> None:
        weights[f"{at}.w"], weights[f"{at}.b"] = 1 + normal(F, size=0.2), normal(F, size=0.2)

    def add_three(at: str, inputs: int, outputs: int, *, norm: bool = True) -> None:
        for number, (n_in, n_out) in enumerate([(inputs, F), (F, F), (F, outputs)]):
            add(f"{at}{number}", n_out, n_in)
        if norm:
            add_norm(f"{at}.norm")

    def add_normed(at: str, outputs: int) -> None:
        add(f"{at}0", F, F)
        add_norm(f"{at}.norm")
        add(f"{at}1", outputs, F)

    weights["mask"] = normal(2, F)
    weights["element"] = normal(F) if name == "forcenet" else normal(ELEMENTS, F)
    if name == "gns":
        add_three("nodes", F, F)
        add_three("edges", 4, F)
        add_three("energy", F, 1, norm=False)
        add_three("force", F, 3, norm=False)
    if name == "egnn":
        add_norm("norm")
        add("head0", F, F)
        add("head1", 1, F)
    if name == "forcenet":
        add("mix", 4, 4 * FREQUENCIES)
        add("last", F, F)
        add("energy", 1, F)
        add_normed("force", 3)
    for layer in map(str, range(LAYERS)):
        if name == "gns":
            add_three(f"{layer}.edge", 3 * F, F)
            add_three(f"{layer}.node", 2 * F, F)
        if name == "egnn":
            add(f"{layer}.edge0", F, 2 * F + 1)
            add(f"{layer}.edge1", F, F)
            add(f"{layer}.node0", F, 2 * F)
            add(f"{layer}.node1", F, F)
            add(f"{layer}.move0", F, F)
            # Large moves, so that pairs leave half the box and wrapping matters.
            weights[f"{layer}.move1.w"] = normal(1, F, size=2.0)
        if name == "forcenet":
            add(f"{layer}.basis", F, 36)
            add(f"{layer}.edge0", F, 3 * F)
            add(f"{layer}.edge1", F, F)
            add(f"{layer}.edge2", F, F)
            add(f"{layer}.value", F, F)
            weights[f"{layer}.own"] = normal(1, F)
            add_normed(f"{layer}.node", F)
    return weights


def copied(pairs: dict[str, str], weights: Weights) -> Weights:
    """Weights and biases under our names, by theirs."""
    found = {}
    for ours, theirs in pairs.items():
        found[f"{ours}.weight"] = weights[f"{theirs}.w"]
        if f"{theirs}.b" in weights:
            found[f"{ours}.bias"] = weights[f"{theirs}.b"]
    return found


def embedded(weights: Weights) -> Weights:
    """Embeddings under our names; ours of a blind network is the first row."""
    element = weights["element"]
    if element.dim() == 1:
        element = torch.cat([element[None], element.new_zeros(ELEMENTS - 1, F)])
    return {"embedding.species.weight": element, "embedding.mask.weight": weights["mask"]}


def egnn_parameters(weights: Weights, _std: float) -> Weights:
    """Our EGNN's parameters; atoms move the other way, so that the sign of a weight differs."""
    same = {"final_norm": "norm", "readout.0": "head0", "readout.2": "head1"}
    found = embedded(weights)
    for layer in range(LAYERS):
        at, first = f"layers.{layer}", weights[f"{layer}.edge0.w"]
        same |= {f"{at}.edge.1": f"{layer}.edge1", f"{at}.coordinate.0": f"{layer}.move0"}
        same |= {f"{at}.node.0": f"{layer}.node0", f"{at}.node.2": f"{layer}.node1"}
        found[f"{at}.target.weight"], found[f"{at}.target.bias"] = (
            first[:, :F],
            weights[f"{layer}.edge0.b"],
        )
        found[f"{at}.source.weight"] = first[:, F : 2 * F]
        found[f"{at}.radial.weight"] = first[:, 2 * F :]
        found[f"{at}.coordinate.2.weight"] = -weights[f"{layer}.move1.w"]
    return found | copied(same, weights)


def gns_parameters(weights: Weights, _std: float) -> Weights:
    """Our GNS's parameters; its edge vectors point the other way."""
    same = {"encode_node.1": "nodes.norm", "encode_edge.1": "edges.norm"}
    homes = {"encode_node.0": "nodes", "encode_edge.0": "edges"}
    homes |= {"readout": "energy", "vector_readout": "force"}
    found = embedded(weights)
    for layer in range(LAYERS):
        at, first = f"layers.{layer}", weights[f"{layer}.edge0.w"]
        homes[f"{at}.node.0"] = f"{layer}.node"
        same |= {f"{at}.edge.1": f"{layer}.edge1", f"{at}.edge.3": f"{layer}.edge2"}
        same |= {f"{at}.edge.4": f"{layer}.edge.norm", f"{at}.node.1": f"{layer}.node.norm"}
        found[f"{at}.target.weight"], found[f"{at}.target.bias"] = (
            first[:, :F],
            weights[f"{layer}.edge0.b"],
        )
        found[f"{at}.source.weight"], found[f"{at}.state.weight"] = first[:, F:].split(F, dim=1)
    for ours, theirs in homes.items():
        same |= {f"{ours}.{2 * number}": f"{theirs}{number}" for number in range(3)}
    found |= copied(same, weights)
    turned = torch.tensor([-1.0, -1, -1, 1], dtype=torch.float64)
    found["encode_edge.0.0.weight"] = turned * found["encode_edge.0.0.weight"]
    for layer in range(LAYERS):
        name = f"layers.{layer}.node.0.0.weight"
        found[name] = found[name].roll(F, dims=1)
    return found


def harmonic_map() -> Tensor:
    """(9, 9) what the released harmonics are of ours, which see the opposite vector."""
    half = math.sqrt(0.5)
    entries = [(0, 1.0), (2, -1.0), (6, 1.0), (3, half), (7, -half), (8, half)]
    entries += [(1, half), (5, -half), (4, half)]
    found = torch.zeros(9, 9, dtype=torch.float64)
    for row, (column, value) in enumerate(entries):
        found[row, column] = value
    return found


def forcenet_parameters(weights: Weights, std: float) -> Weights:
    """Our ForceNet's parameters; its bias is in units of the scale, which has `std` once more."""
    same = {"output.0": "last", "vector_readout.0": "force0", "vector_readout.1": "force.norm"}
    same |= {"vector_readout.3": "force1"}
    found = embedded(weights)
    for layer in range(LAYERS):
        at, first = f"layers.{layer}", weights[f"{layer}.edge0.w"]
        same |= {f"{at}.filter.1": f"{layer}.edge1", f"{at}.filter.3": f"{layer}.edge2"}
        same |= {f"{at}.value": f"{layer}.value", f"{at}.node.0": f"{layer}.node0"}
        same |= {f"{at}.node.1": f"{layer}.node.norm", f"{at}.node.3": f"{layer}.node1"}
        of_basis, of_source, of_target = first.split(F, dim=1)
        found[f"{at}.source.weight"], found[f"{at}.target.weight"] = of_source, of_target
        found[f"{at}.target.bias"] = (
            weights[f"{layer}.edge0.b"] + of_basis @ weights[f"{layer}.basis.b"]
        )
        by_harmonic = (of_basis @ weights[f"{layer}.basis.w"]).view(F, 9, 4)
        ours = torch.einsum("fkr,ks->frs", by_harmonic, harmonic_map())
        found[f"{at}.basis.weight"] = ours.flatten(1)
        found[f"{at}.own"] = weights[f"{layer}.own"]
    found |= copied(same, weights)
    by_power = weights["mix.w"].view(4, FREQUENCIES, 4)
    found["basis.mix.weight"] = by_power.mT.flatten(1)
    found["basis.mix.bias"] = weights["mix.b"]
    found["readout.0.weight"], found["readout.0.bias"] = (
        weights["energy.w"],
        weights["energy.b"] / std,
    )
    return found


PARAMETERS: dict[str, Callable[[Weights, float], Weights]] = {
    "egnn": egnn_parameters,
    "gns": gns_parameters,
    "forcenet": forcenet_parameters,
}


def theirs(
    name: str, weights: Weights, box: Box, scale: float = 1, offset: float = 0, extra: float = 0
) -> tuple[Tensor, Tensor]:
    """Energies and vectors of the released code's network."""
    if name == "egnn":
        return released.egnn(weights, box, LAYERS, CUTOFF, scale, offset)[:2]
    if name == "gns":
        return released.gns(weights, box, LAYERS, CUTOFF, extra)
    return released.forcenet(weights, box, LAYERS, CUTOFF, scale, offset, extra)


class Call(nn.Module):
    """A penalty, or a prediction, as a module whose parameters can be replaced."""

    def __init__(self, model: Potential) -> None:
        super().__init__()
        self.model = model

    def forward(self, asked: Term | Batch) -> tuple[Tensor, ...]:
        if isinstance(asked, Term):
            return (asked.penalty(self.model, asked.batch),)
        predicted = self.model(asked)
        return predicted.energy.double() + self.model.reference_energy(asked), predicted.forces


@dataclass(frozen=True)
class Pair:
    """A model of ours and weights of the released code's.

    Args:
        name: egnn, gns or forcenet.
        settings: of our model.
        weights: of theirs.
        graphs: two frames of 27 molecules.
    """

    name: str
    settings: ModelConfig
    weights: Weights
    graphs: GraphSet

    @classmethod
    def make(cls, name: str, **changes: object) -> Pair:
        """A pair with random weights.

        Args:
            name: of the model.
            changes: to the settings of ours.
        """
        graphs = GraphSet.build(water_box(27, 2), cutoff=CUTOFF, dtype=torch.float64)
        weights = random_weights(name, seeded("parity"))
        asked = {key: value.requires_grad_() for key, value in weights.items()}
        return cls(name, SETTINGS[name].model_copy(update=changes), asked, graphs)

    def ours(self, model: Potential, asked: Term | Batch, std: float = 1) -> tuple[Tensor, ...]:
        """What our model says with their weights, differentiable by these."""
        mapped = PARAMETERS[self.name](self.weights, std)
        own = {f"model.{key}" for key, _ in model.named_parameters()}
        given = {f"model.{key}": value for key, value in mapped.items()}
        assert own == given.keys(), own ^ given.keys()
        found: tuple[Tensor, ...] = functional_call(Call(model), given, (asked,))
        return found

    def model(self) -> Potential:
        """Of ours, in training mode, as the released code always is but for its last test."""
        return build_model(self.settings, seed=0).double().train()

    def box(self, graph: Batch, positions: Tensor | None = None) -> Box:
        """The atoms of a batch for the released code."""
        sides = self.graphs.cell[FRAMES].diagonal(dim1=1, dim2=2)
        mask = graph.masked.long() if "masked" in graph else None
        return Box(graph.z, graph.pos if positions is None else positions, graph.batch, sides, mask)

    def gradients(self, loss: Tensor) -> Tensor:
        """Of a loss by all their weights, in one row."""
        found = torch.autograd.grad(loss, [*self.weights.values()], allow_unused=True)
        filled = zip(found, self.weights.values(), strict=True)
        return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for g, w in filled])


Compared = dict[str, tuple[Tensor, Tensor]]
"""Ours and theirs by quantity."""


def compare_labels(pair: Pair, extra: float = 0) -> Compared:
    """Total energies (eV), forces (eV/Å), the finetuning loss and its gradients."""
    chosen = LABELS | (ONCE if pair.name == "gns" else TWICE)
    settings = EnergyForcesSettings.model_validate({"name": "energy_forces"} | chosen)
    statistics, model = LabelStatistics.fit(pair.graphs, FRAMES), pair.model()
    statistics.apply(model, settings)
    (term,) = EnergyForces(settings, pair.graphs, statistics).terms(FRAMES, seeded(0))
    std, mean = (
        value / KJ_PER_MOL for value in (statistics.frame_energy_std, statistics.frame_energy)
    )
    energy, forces = pair.ours(model, term.batch, std)
    (loss,) = pair.ours(model, term, std)
    known = (1.0, 0.0) if pair.name == "gns" else (std, mean)
    told, pull = theirs(pair.name, pair.weights, pair.box(term.batch), *known, extra=extra)
    labels = pair.graphs.energy[FRAMES] / KJ_PER_MOL, term.batch.force / KJ_PER_MOL
    expected = released.energy_force_loss(told, pull, labels, mean, std)
    return {
        "energy": (energy, (told * std + mean) * KJ_PER_MOL),
        "forces": (forces, pull * std * KJ_PER_MOL),
        "loss": (loss, expected),
        "gradients": (pair.gradients(loss), pair.gradients(expected)),
    }


def compare_masking(pair: Pair, extra: float = 0) -> Compared:
    """The masking loss and its gradients, with one set of hidden atoms."""
    task = Masking(MaskingSettings(name="masking", masking_ratio=0.5), pair.graphs)
    (term,) = task.terms(FRAMES, seeded(1))
    (loss,) = pair.ours(pair.model(), term)
    box, whole = pair.box(term.batch), pair.box(pair.graphs.gather(FRAMES))
    towards = displacements(whole, box)
    vectors = theirs(pair.name, pair.weights, box, extra=extra)[1]
    expected = released.masking_loss(vectors, box, towards)
    return {
        "masking loss": (loss, expected),
        "masking gradients": (pair.gradients(loss), pair.gradients(expected)),
    }


def displacements(whole: Box, left: Box) -> Tensor:
    """(K, 3) Å, from each masked atom that is left, in order, to the hydrogen that is gone.

    Atoms come as O, H, H; the released code takes the molecule's number from the place of an atom.
    """
    gone = (whole.pos[:, None] - left.pos[None]).norm(dim=-1).amin(dim=1) > 0
    found = []
    for first in range(0, len(whole.z), 3):
        for atom in range(first, first + 3):
            if gone[first : first + 3].any() and not gone[atom]:
                hidden = first + int(gone[first : first + 3].nonzero()[0])
                found.append(whole.pos[hidden] - whole.pos[atom])
    atoms = torch.tensor(
        [at for at in range(len(left.z)) if left.mask is not None and left.mask[at]]
    )
    return left.wrapped(torch.stack(found), atoms)


def compare_denoising(pair: Pair, extra: float = 0) -> Compared:
    """The denoising loss and its gradients, with one draw of the noise."""
    settings = DenoisingSettings(
        name="denoising", noise_scale=0.3, target="noise", target_unit="angstrom"
    )
    (term,) = Denoising(settings, pair.graphs).terms(FRAMES, seeded(2))
    (loss,) = pair.ours(pair.model(), term)
    box = pair.box(term.batch)
    noise = box.pos - pair.graphs.gather(FRAMES).pos
    vectors = theirs(pair.name, pair.weights, box, extra=extra)[1]
    if getattr(pair.settings, "vector_output", "") == "displacement":
        vectors = released.egnn(pair.weights, box, LAYERS, CUTOFF)[2]
    expected = released.denoising_loss(vectors, noise)
    return {
        "denoising loss": (loss, expected),
        "denoising gradients": (pair.gradients(loss), pair.gradients(expected)),
    }


def compare(pair: Pair, extra: float = 0) -> Compared:
    """Everything."""
    found = compare_labels(pair, extra) | compare_masking(pair, extra)
    return found | compare_denoising(pair, extra)


def deviation(ours: Tensor, expected: Tensor) -> float:
    """Largest difference, in units of the largest value."""
    return float((ours - expected).detach().abs().max() / expected.detach().abs().max())


def main() -> None:
    """Print the table."""
    columns = {name: compare(Pair.make(name)) for name in SETTINGS}
    print(f"{'':22}" + "".join(f"{name:>22}" for name in columns))  # noqa: T201 - the table
    for quantity in columns["egnn"]:
        cells = [
            f"{float((a - b).detach().abs().max()):.1e} ({deviation(a, b):.0e})"
            for a, b in (column[quantity] for column in columns.values())
        ]
        print(f"{quantity:22}" + "".join(f"{cell:>22}" for cell in cells))  # noqa: T201


if __name__ == "__main__":
    main()
