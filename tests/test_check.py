from __future__ import annotations

from pathlib import Path

import pytest

from study.check import main
from study.checks.dataset_contract import CHECKS as DATA_CHECKS
from study.checks.metric_contract import CHECKS as METRIC_CHECKS
from study.checks.model_contract import CHECKS, examine
from study.checks.task_contract import CHECKS as TASK_CHECKS
from study.models.config import ModelConfig
from tests.native import NATIVE
from tests.readme import example

GOOD = example("mine.py")
PARTS = {
    "PairSettings": len(CHECKS),
    "PushSettings": len(TASK_CHECKS),
    "Dimers": len(DATA_CHECKS),
    "WorstForces": len(METRIC_CHECKS),
}


@pytest.mark.parametrize("kind", NATIVE.values(), ids=NATIVE)
def test_the_shipped_models_pass(kind: type[ModelConfig]) -> None:
    settings = kind.model_validate({"name": kind.space_name(), "hidden": 8, "layers": 2})
    found = dict(examine(settings.build, settings))
    assert set(filter(None, found.values())) == set()
    # Neither forces nor stresses of direct models are gradients, and ForceNet has batch norm.
    assert len(found) >= len(CHECKS) - 4


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "pair_model.py"
    path.write_text(GOOD)
    return path


def test_good_parts_of_ones_own_pass(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model_file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == [
        f"{part}: ok" for part in PARTS
    ]
    assert len(lines) == len(PARTS) + sum(PARTS.values())


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        (
            'cutoff_envelope(length, self.settings.cutoff, "smooth")',
            "1.0",
            ["smooth at the cutoff"],
        ),
        (
            "features = self.embedding(graph)",
            "features = torch.ones(len(graph.z), self.settings.hidden).to(length)",
            ["elements are distinguished", "masked atoms are distinguished"],
        ),
        (
            "weight * self.edge(length) *",
            "positions[target][:, :1] * weight * self.edge(length) *",
            ["translations change nothing", "rotations turn forces and vectors"],
        ),
        (
            "        return self.readout",
            "        messages = messages + messages.mean(0)\n        return self.readout",
            ["frames of a batch do not mix"],
        ),
        (
            "        return self.readout",
            "        features = features * torch.arange(len(features))[:, None]\n"
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
            ["finite for unusual structures"],
        ),
        (
            "nn.Linear(settings.hidden, 1))",
            "nn.Linear(settings.hidden, 1), nn.Softplus())",
            ["heads can be zero-initialized"],
        ),
        (
            "nn.Sequential(nn.SiLU(), nn.Linear(settings",
            "nn.Sequential(nn.BatchNorm1d(settings.hidden), nn.Linear(settings",
            ["no frame changes another in training"],
        ),
        (
            "features = self.embedding(graph)",
            "self.calls = getattr(self, 'calls', 0) + 1\n"
            "        features = self.embedding(graph) / self.calls",
            ["predictions depend on no earlier ones"],
        ),
        (
            "weight * self.edge(length) *",
            "torch.ones(1, dtype=torch.float64) * weight * self.edge(length) *",
            ["all is computed in the precision of the weights"],
        ),
        (
            "self.readout = nn.Sequential(nn.SiLU()",
            "self.layers = nn.ModuleList([nn.Linear(1, 1)])\n"
            "        self.readout = nn.Sequential(nn.SiLU()",
            ["layers are known for freezing and decay"],
        ),
        (
            "    stiffness: float",
            "    max_neighbors: int | None = None\n    stiffness: float",
            ["the number of neighbours is limited as set"],
        ),
        ("return (model", "return torch.nan * (model", ["the loss is a finite number"]),
        (
            "generator=generator",
            "generator=None",
            ["all randomness comes from the generator"],
        ),
        ("model.vectors(graph) +", "", ["gradients reach the body of a model"]),
        ("+ graph.push)", "- graph.force)", ["it reads no labels"]),
        (
            "graph = self.graphs.gather(frames)",
            "self.graphs.pos.add_(1)\n        graph = self.graphs.gather(frames)",
            ["it does not change the frames"],
        ),
        ('"val_loss": float', '"loss": float', ["validation metrics are finite"]),
        ("default_rng(0)", "default_rng()", ["equal settings give equal frames"]),
        ("(along * (1", "(np.nan * along * (1", ["models can learn from the frames"]),
        ("np.arange(self.frames) // 3", "0 * stretch", ["its groups can be split"]),
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


def test_layers_that_are_not_named_are_no_fault_but_told(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, end = GOOD.index("class PairSettings"), GOOD.index("class PushSettings")
    lists = "self.interactions = nn.ModuleList([nn.Linear(1, 1)])\n        self.readout ="
    text = GOOD[:model] + GOOD[model:end].replace("self.readout =", lists, 1)
    model_file.write_text(text)
    assert main([str(model_file)]) == 0
    (line,) = (each for each in capsys.readouterr().out.splitlines() if "warning" in each)
    assert line.startswith("warning has interactions, but names no layers in `blocks`, which")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must define a class derived from `study.plugins.ModelConfig`"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        (GOOD.replace('    name: Literal["pair"]', "    width: int = 3"), "must have a name"),
        (GOOD.replace('["pair"]', '["pair"]\n    width: int'), "PairSettings.width"),
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
    assert "cannot be read" in capsys.readouterr().err
