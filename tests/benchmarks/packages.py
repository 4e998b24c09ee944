"""Training steps of other packages' models beside the same networks by the packages alone.

`python -m tests.benchmarks.packages tensornet` trains both on the same batch, with the neighbors
given to both, in turns, and prints the median time of a step and its ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from study.core.config import shipped
from study.graphs.graph_set import GraphSet, edge_vectors
from study.models.build import build_model
from study.models.config import ModelConfig
from tests.benchmarks.water import water_box

Step = Callable[[], None]
Energies = Callable[[Batch, Tensor], Tensor]
"""The energy of each atom, from a batch and positions."""
WARM = 3


def of_torch_geometric(settings: Any) -> tuple[nn.Module, Energies]:
    """DimeNet++ with its edges and triplets given; its blocks know no periodic images otherwise."""
    from torch_geometric.nn.models import dimenet

    from study.models.packages.dimenet import edge_pairs

    sizes = ("num_radial", "num_spherical", "int_emb_size", "basis_emb_size", "out_emb_channels")
    model = dimenet.DimeNetPlusPlus(
        settings.hidden,
        1,
        settings.layers,
        cutoff=settings.cutoff,
        **{name: getattr(settings, name) for name in sizes},
        output_initializer="glorot_orthogonal",
    )
    pairs: list[tuple[Tensor, Tensor]] = []

    def energies(graph: Batch, positions: Tensor) -> Tensor:
        vectors = edge_vectors(graph, positions)
        if not pairs:
            pairs.append(edge_pairs(graph.edge_index, vectors.detach(), len(graph.z)))
        (before, after), (source, target) = pairs[0], graph.edge_index
        length = vectors.square().sum(dim=-1).sqrt()
        first, second = vectors[before], vectors[after]
        across = torch.linalg.cross(first, second).norm(dim=-1)
        angle = torch.atan2(across, (first * second).sum(dim=-1))
        radial = model.rbf(length)
        angular = model.sbf(length, angle, before)
        edges = model.emb(graph.z, radial, target, source)
        total = model.output_blocks[0](edges, radial, target, len(graph.z))
        for block, output in zip(model.interaction_blocks, model.output_blocks[1:], strict=True):
            edges = block(edges, radial, angular, before, after)
            total = total + output(edges, radial, target, len(graph.z))
        return total[:, 0]

    return model, energies


def of_torchmd_net(settings: Any) -> tuple[nn.Module, Energies]:
    """TensorNet with its output module, and with edges and loops given."""
    from torchmdnet.models.output_modules import Scalar
    from torchmdnet.models.tensornet import TensorNet

    network = TensorNet(
        settings.hidden,
        settings.layers,
        settings.num_rbf,
        cutoff_upper=settings.cutoff,
        static_shapes=False,
    )
    readout = Scalar(settings.hidden)

    class Given(nn.Module):
        def forward(self, positions: Tensor, batch: Tensor, box: Any) -> Any:
            del batch
            index, shift = box
            vectors = positions[index[0]] - positions[index[1]] + shift
            loops = index[0] == index[1]
            return index, vectors.masked_fill(loops[:, None], 1).norm(dim=-1) * ~loops, vectors

    network.distance = Given()

    def energies(graph: Batch, positions: Tensor) -> Tensor:
        atoms = torch.arange(len(graph.z))
        index = torch.cat([graph.edge_index.flip(0), atoms.expand(2, -1)], dim=1)
        shift = torch.cat([graph.shift, graph.shift.new_zeros(len(atoms), 3)])
        features, vectors, z, moved, batch = network(
            graph.z, positions, graph.batch, (index, shift)
        )
        return readout.pre_reduce(features, vectors, z, moved, batch)[:, 0]

    return nn.ModuleList([network, readout]), energies


def of_nequip(settings: Any) -> tuple[nn.Module, Energies]:
    """`NequIPGNNModel` without its forces, which are taken in the same way of all."""
    from nequip.data import AtomicDataDict as Keys
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    model = NequIPGNNModel(
        seed=0,
        model_dtype="float32",
        type_names=["H", "O"],
        r_max=settings.cutoff,
        num_layers=settings.layers,
        l_max=settings.l_max,
        parity=settings.parity,
        num_features=settings.hidden,
        avg_num_neighbors=15.0,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
        do_derivatives=False,
    )
    network = next(each for each in model.modules() if hasattr(each, "layer0_convnet"))

    def energies(graph: Batch, positions: Tensor) -> Tensor:
        data = {
            Keys.POSITIONS_KEY: positions,
            Keys.EDGE_INDEX_KEY: graph.edge_index.flip(0),
            Keys.EDGE_VECTORS_KEY: -edge_vectors(graph, positions),
            Keys.ATOM_TYPE_KEY: (graph.z == 8).long(),
        }
        return network(data)[Keys.PER_ATOM_ENERGY_KEY][:, 0]

    return network, energies


PACKAGES = {
    "dimenet_plus_plus": of_torch_geometric,
    "tensornet": of_torchmd_net,
    "nequip": of_nequip,
}


def step(model: nn.Module, energies: Energies, graph: Batch) -> Step:
    """A step on energies and forces, without the optimizer, which is the same for both."""

    def run() -> None:
        positions = graph.pos.detach().requires_grad_()
        atomic = energies(graph, positions)
        (gradient,) = torch.autograd.grad(atomic.sum(), positions, create_graph=True)
        loss = atomic.sum().square() + (gradient + graph.force).square().sum()
        model.zero_grad()
        loss.backward()

    return run


def seconds(run: Step) -> float:
    """Processor time of a step."""
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(name: str, hidden: int, rounds: int) -> tuple[float, float]:
    """Median seconds of a step: the package's, and ours over it."""
    torch.manual_seed(0)
    kind = shipped(ModelConfig)[name]
    settings = kind.model_validate({"name": name, "hidden": hidden, "layers": 3, "cutoff": 3.4})
    graph = GraphSet.build(water_box(27, 4), 3.4).gather(torch.arange(4))
    ours = build_model(settings, seed=0)
    steps = [
        step(*PACKAGES[name](settings), graph),
        step(ours, ours.atomic_energies, graph),  # type: ignore[arg-type]
    ]
    for run in steps * WARM:
        run()
    taken = [[seconds(run) for run in steps] for _ in range(rounds)]
    ratios = [our / their for their, our in taken]
    return statistics.median(their for their, _ in taken), statistics.median(ratios)


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.packages", description=__doc__
    )
    parser.add_argument("models", nargs="*", choices=PACKAGES, default=["dimenet_plus_plus"])
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.models:
        package, ratio = measure(name, chosen.hidden, chosen.rounds)
        sys.stdout.write(f"{name}: {1000 * package:.0f} ms by the package, ours {ratio:.2f} x\n")


if __name__ == "__main__":
    main()
