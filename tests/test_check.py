from __future__ import annotations

from pathlib import Path

import pytest

from study.check import main
from study.contract import CHECKS, examine
from study.models import MODELS
from study.trial import EGNN, GNS, EquivariantTransformer, ForceNet, Network, SchNet, ViSNet

GOOD = '''
from typing import Literal

import torch
from torch import nn

from study.graph import edge_vectors
from study.models.embedding import AtomEmbedding
from study.models.potential import ConservativePotential
from study.models.radial import distances, fade
from study.trial import Network


class PairSettings(Network):
    """A sum over pairs."""

    name: Literal["pair"]


class Pair(ConservativePotential):
    """Every atom's energy from its element and the lengths of its edges."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings
        self.embedding = AtomEmbedding(settings.hidden)
        self.edge = nn.Sequential(nn.Linear(1, settings.hidden), nn.SiLU())
        self.readout = nn.Sequential(nn.SiLU(), nn.Linear(settings.hidden, 1))

    def atomic_energies(self, graph, positions):
        source, target = graph.edge_index
        length = distances(edge_vectors(graph, positions))
        message = fade(length, self.settings.cutoff, "smooth") * self.edge(length)
        features = self.embedding(graph)
        received = torch.zeros_like(features).index_add(0, target, message * features[source])
        return self.readout(features + received).squeeze(-1)
'''


@pytest.mark.parametrize(
    "settings",
    [
        EGNN(name="egnn", hidden=8, layers=2),
        GNS(name="gns", hidden=8, layers=2),
        ForceNet(name="forcenet", hidden=8, layers=2),
        SchNet(name="schnet", hidden=8, layers=2),
        ViSNet(name="visnet", hidden=8, layers=2),
        EquivariantTransformer(name="equivariant_transformer", hidden=8, layers=2),
    ],
    ids=lambda settings: settings.name,
)
def test_the_shipped_models_pass(settings: Network) -> None:
    kind = MODELS[settings.name]  # type: ignore[attr-defined]
    found = dict(examine(kind, settings))
    assert set(filter(None, found.values())) == set()
    assert len(found) >= len(CHECKS) - 2


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "pair_model.py"
    path.write_text(GOOD)
    return path


def test_a_good_model_of_ones_own_passes(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model_file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Pair: ok"
    assert len(lines) == len(CHECKS) + 1


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        ('fade(length, self.settings.cutoff, "smooth") *', "1 *", ["smooth at the cutoff"]),
        (
            "features = self.embedding(graph)",
            "features = torch.ones(len(graph.z), self.settings.hidden).to(length)",
            ["elements are told apart", "masked atoms are told apart"],
        ),
        (
            "        return self.readout",
            "        received = received + positions[:, :1]\n        return self.readout",
            ["translations change nothing", "rotations turn forces and vectors"],
        ),
        (
            "        return self.readout",
            "        received = received + received.mean(0)\n        return self.readout",
            ["frames of a batch do not mix"],
        ),
        (
            "        return self.readout",
            "        received = received * torch.arange(len(received))[:, None]\n"
            "        return self.readout",
            ["the order of atoms does not matter"],
        ),
        (
            "edge_vectors(graph, positions)",
            "edge_vectors(graph, positions.detach()) + 0 * positions[:1]",
            ["forces are the negative gradient"],
        ),
        ("length = distances(", "length = 1 / (", ["shapes"]),
        (
            "self.edge(length)",
            "self.edge(edge_vectors(graph, positions).norm(dim=-1, keepdim=True).log())",
            ["finite for strange structures"],
        ),
        (
            "nn.Linear(settings.hidden, 1))",
            "nn.Linear(settings.hidden, 1), nn.Softplus())",
            ["heads can be silenced"],
        ),
    ],
)
def test_every_broken_promise_is_found(
    model_file: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    broken: list[str],
) -> None:
    assert old in GOOD
    model_file.write_text(GOOD.replace(old, new, 1))
    assert main([str(model_file)]) == 1
    failed = {
        line.removeprefix("failed").strip()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("failed")
    }
    assert set(broken) <= failed


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must define one class derived from ConservativePotential"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        (GOOD.replace('    name: Literal["pair"]', "    width: int = 3"), "must have a name"),
        (GOOD.replace('["pair"]', '["pair"]\n    width: int'), "PairSettings.width"),
        (GOOD.replace("(Network)", "(object)"), "derived from Network, but has none"),
    ],
)
def test_a_file_without_a_model_is_answered_in_a_line(
    model_file: Path, capsys: pytest.CaptureFixture[str], text: str, rule: str
) -> None:
    model_file.write_text(text)
    assert main([str(model_file)]) == 2
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1
    assert main([str(model_file.with_name("nope.py"))]) == 2
    assert "no such Python file" in capsys.readouterr().err
