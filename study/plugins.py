"""All that parts of your own need, of models to samplers, in one place with stable names.

A Python file, or an installed module, has a config class, whose fields are keys of a space and
whose `build` makes what they describe; shipped components are made in the same way:

    class PairConfig(plugins.ModelConfig):
        name: Literal["pair"]

        def build(self):
            return PairPotential(self)

    model: {name: pair, code: pair.py, hidden: 64}

A config may also name what it builds, `implementation = "my_package.pair:PairPotential"`, which is
then called with the config, and is imported no earlier. A file is one whole: it imports installed
packages, no other file. Its content is part of the name of all work that uses it, and is kept with
the results. Whoever opens a space that names a file, even with `--dry-run`, runs that file.

Config classes
    ModelConfig: settings of a model, with `hidden`, `layers` and `cutoff`; `build()` gives a
        `ConservativePotential` or a `DirectPotential`. Its `cost`, a `ModelCost`, is what estimates
        take it to need. NearestNeighborsConfig has `max_neighbors`, too, for models that apply it.
    TaskConfig: settings of a pretraining task; `build(graphs)` gives a `PretextTask` over all
        frames of a `GraphSet`.
    DatasetConfig: settings of a data set; `build()` gives `Frames`.
    SamplerConfig: settings of what proposes trials, `search: {sampler: {name: ..., code: ...}}`;
        `build(seed)` gives an `optuna.samplers.BaseSampler`.

    MetricConfig: settings of an error that ranks trials, `finetune: {task: {name: energy_forces,
        metrics: [{name: ..., code: ...}]}}`; `build()` gives a function of two `FrameValues`,
        predictions and labels, that returns a number from 0 on, lower for better predictions.

Graphs
    A model sees a torch-geometric `Batch` of N atoms, E edges and G frames:
        `z` (N,): atomic numbers, int64
        `pos` (N, 3): positions, Å
        `edge_index` (2, E): source and target, int64; both directions of each pair are there
        `shift` (E, 3): lattice translation of the target, Å
        `cell` (G, 3, 3): lattice vectors as rows, Å; zero where a frame does not repeat
        `batch` (N,): frame of each atom, int64
        `ptr` (G + 1,): first atom of each frame, int64
        `energy` (G,) and `force` (N, 3): labels, eV (float64) and eV/Å
    Neither a model nor a pretraining task reads labels. A task may add
        `masked` (N,): 1 for atoms that it has marked; all 0 in finetuning
        `given_force` (N, 3): forces that it tells, eV/Å; 0 for atoms that are told none
    Edges are all pairs within `cutoff`, images of one atom among them. `edge_vectors` points from
    source to target, pos[target] + shift - pos[source], differentiable; messages go to the target.
    `gather_rows` indexes rows with a gradient that is the same in every run; `connect` finds the
    neighbours of moved atoms. Numbers are float32 in studies and float64 in `study.check`, so
    constants take the dtype and device of an input.

Potentials
    Potential: what all models have in common. Its `forward` gives a `Prediction`, energies (G,) eV
        and forces (N, 3) eV/Å, and `with_stress` stresses (G, 3, 3) eV/Å³, too, if it
        `gives_stress`. Pretraining tasks ask for `vectors` (N, 3) and `scalars` (N,).
    ConservativePotential: has `atomic_energies` (N,); forces and stress are their gradient, by
        `positions` and by `graph.shift`. Head: `readout`.
    DirectPotential: has `features`, which both heads are called with: `readout`, (N, 1), and
        `vector_readout`, (N, 3). It says `equivariant = True` if its forces turn with the atoms.
    What a model puts out is multiplied by `scale`, eV, and added to `reference_energy`, from the
    buffers `reference`, of elements, and `frame_reference`; tasks set all three. `sum_per_graph`
    sums what atoms have to what frames have. A class says what it is:
        `conservative`: its forces are the gradient of its energy, which is checked
        `equivariant`: forces and vectors turn with the atoms, which is checked
        `needs_cell`: it looks at `cell`, not at `shift` alone, and so has no stress
        `independent_frames`: no frame of a batch changes another's prediction in training; False
            with batch norm, else checked
        `compilable`: loss and gradients can be traced into one program for batches of all sizes:
            no `.item()`, no branch on values or sizes, no autograd function of one's own
    `settings` is its config; `build` gets it, and a constructor keeps it.

Heads and layers
    Heads are modules named in `heads` ("readout", or "net.readout" further below). Whatever they
    are, the last weights in them are linear, with or without a bias: `zero_init_readout` zeroes
    these, and `load_pretrained` leaves heads out with `transfer: body`. `blocks` are the layers in
    their order, by default a `ModuleList` called `layers`, and as many as the config's `layers`. A
    module between them and the heads is named in `after_layers`. `layer_depth` counts by them for
    `layer_decay`, and `freeze_all_but_last` for `trainable`; `require_blocks` refuses both where no
    layers are named.

Layers
    AtomEmbedding tells elements and marked atoms apart; ForceEmbedding takes given forces, for
    configs with `force_input: bool`. `bessel_basis` and `exponential_basis` spread a length,
    `spherical_harmonics` a direction, over functions; `distances` and `lengths` have a gradient
    everywhere; SiLU has fast second derivatives; `initialize` draws the weights.

Envelope and neighbours
    An atom that crosses the cutoff must change nothing at once: weight edges by `cutoff_envelope`.
    `edge_weights` does so and keeps the `max_neighbors` nearest, for a NearestNeighborsConfig with
    an `envelope`.

Metrics
    FrameValues: NumPy arrays of all F frames and N atoms that are validated or tested on together:
        `energies` (F,) eV, in a task `scalar` its target in that one's unit
        `forces` (N, 3) eV/Å; None in a task `scalar`
        `stress` (F, 3, 3) eV/Å³; None where the model or the data have none
        `species` (N,): atomic numbers
        `frame` (N,): frame of each atom, from 0
    Labels that a frame lacks are NaN. Frames come in any order. A metric is asked for each epoch
    on the validation frames, and once on the test frames.

Tasks
    PretextTask: has `terms`, the `Term`s of the loss, and `evaluate`, metrics with `val_loss`. With
        `resources: {workers: ...}` each worker has some frames of a batch: a Term's `counts` then
        says of how many values of a batch its penalty is the mean, such as
        `lambda batch: len(batch.z)`, or 1 if it is a sum; what a task adds to a batch has a row for
        each atom or each frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.core.components import resolve
from study.datasets.config import DatasetConfig
from study.models.config import ModelConfig, ModelCost, NearestNeighborsConfig
from study.space.search.samplers import SamplerConfig
from study.tasks.base_config import MetricConfig
from study.tasks.config import TaskConfig
from study.tasks.metrics import FrameValues

if TYPE_CHECKING:
    from study.datasets.frames import Frames
    from study.graphs.graph_set import GraphSet, connect, edge_vectors, gather_rows
    from study.models.layers.embedding import AtomEmbedding, ForceEmbedding
    from study.models.layers.init import initialize
    from study.models.layers.radial import (
        bessel_basis,
        cutoff_envelope,
        distances,
        edge_weights,
        exponential_basis,
        lengths,
    )
    from study.models.layers.silu import SiLU
    from study.models.layers.spherical_harmonics import spherical_harmonics
    from study.models.potential import (
        ConservativePotential,
        DirectPotential,
        Potential,
        Prediction,
        sum_per_graph,
    )
    from study.tasks.task import PretextTask, Term

__all__ = [
    "AtomEmbedding",
    "ConservativePotential",
    "DatasetConfig",
    "DirectPotential",
    "ForceEmbedding",
    "FrameValues",
    "Frames",
    "GraphSet",
    "MetricConfig",
    "ModelConfig",
    "ModelCost",
    "NearestNeighborsConfig",
    "Potential",
    "Prediction",
    "PretextTask",
    "SamplerConfig",
    "SiLU",
    "TaskConfig",
    "Term",
    "bessel_basis",
    "connect",
    "cutoff_envelope",
    "distances",
    "edge_vectors",
    "edge_weights",
    "exponential_basis",
    "gather_rows",
    "initialize",
    "lengths",
    "spherical_harmonics",
    "sum_per_graph",
]

_MODULES = {
    "study.datasets.frames": ("Frames",),
    "study.graphs.graph_set": ("GraphSet", "connect", "edge_vectors", "gather_rows"),
    "study.models.layers.embedding": ("AtomEmbedding", "ForceEmbedding"),
    "study.models.layers.init": ("initialize",),
    "study.models.layers.radial": (
        "bessel_basis",
        "cutoff_envelope",
        "distances",
        "edge_weights",
        "exponential_basis",
        "lengths",
    ),
    "study.models.layers.silu": ("SiLU",),
    "study.models.layers.spherical_harmonics": ("spherical_harmonics",),
    "study.models.potential": (
        "ConservativePotential",
        "DirectPotential",
        "Potential",
        "Prediction",
        "sum_per_graph",
    ),
    "study.tasks.task": ("PretextTask", "Term"),
}
"""Where names are that need torch, which configs alone do not import."""

_PLACES = {name: f"{module}:{name}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve(_PLACES[name])
