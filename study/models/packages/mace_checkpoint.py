"""Models that mace-torch saved, read as its own class and told in our settings."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from study.core.errors import UserError
from study.core.quantities.elements import SYMBOLS
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.packages.config import MACE as MACESettings  # noqa: N811 - names a model
from study.models.packages.mace import MACE, keywords, modules

SAME = 1e-4
"""eV and eV/Å by which the converted model may differ from the saved one, in float32."""

LONE = "atomic_energies_fn.atomic_energies"
"""Energies of lone atoms, which are our `reference`."""

OURS = {
    "max_ell": "max_ell",
    "num_bessel": "num_radial_basis",
    "num_polynomial_cutoff": "num_cutoff_basis",
    "correlation": "correlation",
    "radial_type": "radial_type",
    "pair_repulsion": "pair_repulsion",
    "use_reduced_cg": "use_reduced_cg",
    "use_so3": "use_so3",
    "use_agnostic_product": "use_agnostic_product",
    "use_last_readout_only": "use_last_readout_only",
}
"""Our words for settings of the package's class that have others, or the same ones."""


def load_pickled(path: Path) -> Any:
    """Unpickle a model that `mace_run_train` saved, which can run any code.

    Raises:
        UserError: if it is no whole `ScaleShiftMACE`.
    """
    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as problem:
        reason = " ".join(str(problem).split())[:200]
        raise UserError(f"{path}: cannot be unpickled ({reason})") from None
    if type(model) is not modules.ScaleShiftMACE:
        raise UserError(
            f"{path}: must be a ScaleShiftMACE of mace-torch, but is {type(model).__name__}"
        )
    return model.float()


def converted(model: Any, head: str | None, path: Path) -> tuple[MACESettings, dict[str, Tensor]]:
    """Settings and weights of our potential that predicts what the package's model does.

    Args:
        model: of the package.
        head: which of its heads to keep; needed if it has several.
        path: of its file.

    Raises:
        UserError: if there is none, or the head is not there.
    """
    heads = list(getattr(model, "heads", ["Default"]))
    if len(heads) > 1 and head is None:
        raise UserError(f"{path}: has the heads {', '.join(heads)}; name one with --head")
    if head not in (None, *heads):
        raise UserError(f"--head: must be one of {', '.join(heads)}, but got {head}")
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        single = _tools().remove_pt_head(model, head) if len(heads) > 1 else model
    settings = _settings_of(single, path)
    ours = _with_weights_of(single, settings, path)
    apart = _difference(model, heads.index(head or heads[0]), ours)
    if not apart < SAME:
        raise UserError(f"{path}: would predict otherwise after conversion, by {apart:.2g} eV")
    return settings, ours.state_dict()


def _settings_of(model: Any, path: Path) -> MACESettings:
    """Our settings of the package's model.

    Raises:
        UserError: if it has parts that these do not describe.
    """
    told = _tools().extract_config_mace_model(model)
    if told["edge_irreps"] is not None or told["use_embedding_readout"] or told["cueq_config"]:
        raise UserError(f"{path}: has edge irreps, embeddings or kernels that are not supported")
    irreps, classes = told["hidden_irreps"], {k: n for n, k in modules.interaction_classes.items()}
    gates = {gate: name for name, gate in modules.gate_dict.items()}
    numbers = told["atomic_numbers"].tolist()
    try:
        found = MACESettings.model_validate(
            {
                "name": "mace",
                "elements": [SYMBOLS[number - 1] for number in numbers],
                "hidden": irreps.count("0e"),
                "max_L": irreps.lmax,
                "layers": int(told["num_interactions"]),
                "cutoff": float(told["r_max"]),
                "MLP_irreps": str(told["MLP_irreps"]),
                "gate": gates.get(told["gate"], "None"),
                "interaction": classes[told["interaction_cls"]],
                "interaction_first": classes[told["interaction_cls_first"]],
                "radial_MLP": [int(width) for width in told["radial_MLP"]],
                "distance_transform": told["distance_transform"] or "None",
                "avg_num_neighbors": float(told["avg_num_neighbors"]),
            }
            | {ours: _plain(told[theirs]) for theirs, ours in OURS.items()}
        )
    except (ValidationError, KeyError) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise UserError(f"{path}: has settings that are not supported ({reason})") from None
    if keywords(found)["hidden_irreps"] != irreps:
        raise UserError(f"{path}: has hidden irreps that are not supported, {irreps}")
    return found


def _with_weights_of(model: Any, settings: MACESettings, path: Path) -> MACE:
    ours = build_model(settings, seed=0)
    assert isinstance(ours, MACE)
    weights, own = dict(model.state_dict()), ours.network.state_dict()
    lone = weights[LONE].reshape(-1)
    weights[LONE] = own[LONE]
    for name in ("scale_shift.scale", "scale_shift.shift"):
        weights[name] = weights[name].reshape(own[name].shape)
    try:
        ours.network.load_state_dict(weights)
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())[:200]
        raise UserError(f"{path}: does not fit mace-torch as it is installed ({reason})") from None
    ours.reference[ours.network.atomic_numbers] = lone.double()
    return ours


def _difference(theirs: Any, head: int, ours: MACE) -> float:
    """Largest difference of energy and forces, eV and Å, on a heap of atoms of its elements."""
    numbers = ours.network.atomic_numbers.numpy()
    atoms = 2 * min(len(numbers), 8)
    rng, reach = np.random.default_rng(0), float(ours.settings.cutoff)
    places = 0.6 * reach * np.arange(atoms)[:, None] * [0.6, 0.1, 0.0]
    frames = Frames(
        rng.permutation(np.resize(numbers, atoms)).astype(np.uint8),
        places + rng.normal(scale=0.1 * reach, size=(atoms, 3)),
        np.zeros((atoms, 3)),
        np.array([0, atoms]),
        (10 * reach * atoms * np.eye(3))[None],
        np.zeros(1),
        np.zeros(1, np.int64),
    )
    graph = GraphSet.build(frames, reach).gather(torch.tensor([0]))
    expected = theirs(
        {
            "positions": graph.pos.clone(),
            "edge_index": graph.edge_index,
            "shifts": graph.shift,
            "unit_shifts": graph.shift,
            "cell": graph.cell.reshape(-1, 3),
            "node_attrs": ours._elements_of(graph.z),
            "batch": graph.batch,
            "ptr": graph.ptr,
            "head": torch.tensor([head]),
        }
    )
    found = ours.eval()(graph)
    energy = found.energy.double() + ours.reference_energy(graph)
    pairs = ((energy, expected["energy"].double()), (found.forces, expected["forces"]))
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


def _tools() -> Any:
    """The package's functions on models, which import all that its training needs."""
    return import_module("mace.tools.scripts_utils")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value
