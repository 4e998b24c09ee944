"""Compiled gradients against those of autograd."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from study.core.errors import UserError
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN, GNS, EquivariantTransformer, ForceNet, ModelConfig, SchNet
from study.models.potential import Potential
from study.tasks.config import Denoising, Masking, Mixed
from study.tasks.config import EnergyForces as EnergyForcesSettings
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.tasks.task import Task, Term
from study.training import compiler as training_compiler
from study.training import program_cache
from study.training.config import Stage
from study.training.gradients import COMPILED_FROM, Engine, compiles
from study.training.loop import fit

MODELS: dict[str, ModelConfig] = {
    "egnn": EGNN(name="egnn", hidden=8, layers=2, basis=4),
    "gns": GNS(name="gns", hidden=8, layers=2),
    "forcenet": ForceNet(name="forcenet", hidden=8, layers=1, frequencies=4, max_n=2),
}

MASKING = Masking(name="masking", masking_ratio=0.5)

MIXED = Mixed(
    name="mixed", tasks=[{"task": MASKING}, {"task": Denoising(name="denoising"), "weight": 0.3}]
)

FINETUNING = EnergyForcesSettings(name="energy_forces", energy_weight=0.1)

CASES = [
    ("egnn", FINETUNING),
    pytest.param("gns", MIXED, marks=pytest.mark.long),
    pytest.param("forcenet", FINETUNING, marks=pytest.mark.long),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled code of the whole module."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As many entries as times that compiled code has run."""
    computed: list[int] = []
    run = training_compiler.Program.__call__

    def counting(self: training_compiler.Program, *inputs: object) -> object:
        computed.append(1)
        return run(self, *inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(training_compiler.Program, "__call__", counting)
    return computed


def task_of(settings: EnergyForcesSettings | Masking | Mixed, frames: Frames) -> Task:
    graphs = GraphSet.build(frames, 3.4, dtype=torch.float64)
    if isinstance(settings, EnergyForcesSettings):
        statistics = LabelStatistics.fit(graphs, torch.arange(len(frames)))
        return EnergyForces(settings, graphs, statistics)
    return settings.build(graphs)


def model_of(name: str) -> Potential:
    return build_model(MODELS[name], seed=0).double().train()


def gradients(
    model: Potential, task: Task, frames: Tensor, **options: object
) -> tuple[Tensor, list[Tensor | None]]:
    """Loss and gradients of a batch that is always corrupted in the same way."""
    model.zero_grad()
    loss = Engine(model, **options).backward(task.terms(frames, seeded(3)))  # type: ignore[arg-type]
    return loss, [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda case: getattr(case, "name", case))
def test_compiled_gradients_are_those_of_autograd_for_any_sizes(
    name: str,
    settings: EnergyForcesSettings | Masking | Mixed,
    mixed_water: Frames,
    store: Path,
    calls: list[int],
) -> None:
    task, compiled = task_of(settings, mixed_water), model_of(name)
    reference = copy.deepcopy(compiled)
    # All but the last are of one class of sizes, and so run one program.
    for frames in ([0, 1, 2], [2, 1], [3, 0, 2, 1], [2]):
        indices = torch.tensor(frames)
        calls.clear()
        loss, computed = gradients(compiled, task, indices, compiled=True, store=store)
        expected_loss, expected = gradients(reference, task, indices)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(computed, expected, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(compiled.state_dict(), reference.state_dict())
        # A single frame has sizes of 1.
        assert len(calls) == (len(task.terms(indices, seeded(3))) if len(indices) > 1 else 0)
    assert list(store.glob("*.zip"))


@pytest.mark.long
def test_compiled_code_leaves_out_absent_labels_as_autograd_does(
    mixed_water: Frames, store: Path, calls: list[int]
) -> None:
    first = slice(*mixed_water.offsets[:2])
    energies, forces = mixed_water.energies.copy(), mixed_water.forces.copy()
    energies[1], forces[first] = np.nan, np.nan
    stresses = np.random.default_rng(0).normal(size=(4, 3, 3))
    stresses[3] = np.nan
    labels = {"energies": energies, "forces": forces, "stresses": stresses}
    task = task_of(
        FINETUNING.model_copy(update={"stress_weight": 0.1}), replace(mixed_water, **labels)
    )
    # One layer, because a gradient through a stress takes long to compile.
    small = MODELS["egnn"].model_copy(update={"layers": 1})
    compiled, reference = (build_model(small, seed=0).double().train() for _ in range(2))
    for frames in ([0, 1, 2], [3, 1], [0, 1]):
        chosen = torch.tensor(frames)
        loss, found = gradients(compiled, task, chosen, compiled=True, store=store)
        expected_loss, expected = gradients(reference, task, chosen)
        assert torch.isfinite(loss)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert len(calls) == 3


@pytest.mark.parametrize(
    "settings",
    [
        *MODELS.values(),
        EGNN(name="egnn", hidden=8, layers=2, max_neighbors=5, vector_output="displacement"),
        EGNN(
            name="egnn", hidden=8, layers=2, rewrap=True, mean="count", coordinate_norm="detached"
        ),
        GNS(name="gns", hidden=8, layers=2, edge_update="legacy"),
        ForceNet(name="forcenet", hidden=8, layers=1, force_input=True, norm="layer"),
        ForceNet(name="forcenet", hidden=8, layers=1, energy_bias="frame", lengths="clamped"),
        SchNet(name="schnet", hidden=8, layers=2),
        EquivariantTransformer(name="equivariant_transformer", hidden=8, layers=2, heads=2),
    ],
    ids=lambda settings: settings.name,
)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_graph_is_right_for_all_sizes_above_one(
    settings: ModelConfig, mixed_water: Frames, *, labelled: bool
) -> None:
    task = task_of(FINETUNING if labelled else MASKING, mixed_water)
    model = build_model(settings, seed=0).double().train()
    (term,), (other,) = (task.terms(torch.tensor(f), seeded(3)) for f in ([0, 1, 2], [3, 1]))
    guards = training_compiler._trace_term(model, term).guards()
    sizes = [training_compiler.varying_sizes(each.batch) for each in (term, other)]
    assert sizes[0] != sizes[1]
    assert all(ShapeEnv().evaluate_guards_expression(guards, each) for each in sizes)


def stored(model: Potential, term: Term, store: Path) -> Path:
    """The one file of code for the sizes of a term."""
    (path,) = store.glob(f"{program_cache._key(model, term, 'float32')}-*.zip")
    return path


LOAD = """
import sys, pathlib, torch
torch.set_num_threads(1)
from study.training import program_cache
program_cache.compile_program = None
program = program_cache._unpack(program_cache.read_hashed(pathlib.Path(sys.argv[1])))
case = torch.load(sys.argv[2])
for found, expected in zip(program.code(*case["inputs"]), case["outputs"], strict=True):
    torch.testing.assert_close(found, expected)
print("same")
"""


def test_another_process_runs_stored_code_without_compiling(
    mixed_water: Frames, store: Path, tmp_path: Path
) -> None:
    task, model = task_of(FINETUNING, mixed_water), model_of("egnn")
    gradients(model, task, torch.arange(3), compiled=True, store=store)
    (term,) = task.terms(torch.arange(4), seeded(3))
    inputs = [
        *training_compiler.weights_of(model),
        *training_compiler.tensors_of(term.batch).values(),
    ]
    outputs = program_cache.load_or_compile(model, term, store).code(*inputs)
    torch.save({"inputs": inputs, "outputs": list(outputs)}, tmp_path / "case.pt")
    path = stored(model, term, store)
    # A compiler that only tells its version, and no cache of inductor's.
    compiler = tmp_path / "bin" / "g++"
    compiler.parent.mkdir()
    for asked in ("-v", "--version"):
        told = subprocess.run(["g++", asked], capture_output=True, text=True, check=True)
        (tmp_path / asked).write_text(told.stdout + told.stderr)
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in -v | --version) exec cat "{tmp_path}/$*"; esac\n'
        f'echo "$@" >> {tmp_path}/asked\nexit 1\n'
    )
    compiler.chmod(0o755)
    hidden = {
        "PATH": f"{compiler.parent}:{os.environ['PATH']}",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "empty"),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), str(tmp_path / "case.pt")],
        env=os.environ | hidden,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("same", 0), done.stderr
    assert not (tmp_path / "asked").exists()


def test_damaged_code_is_compiled_anew(
    mixed_water: Frames, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, model = task_of(FINETUNING, mixed_water), model_of("egnn")
    (term,) = task.terms(torch.arange(3), seeded(3))
    good = program_cache.load_or_compile(model, term, store)
    path = stored(model, term, store)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / path.name
    damaged.write_bytes(content)
    compiled: list[Potential] = []

    def compile_again(model: Potential, term: object) -> training_compiler.Program:
        del term
        compiled.append(model)
        return good

    monkeypatch.setattr(program_cache, "compile_program", compile_again)
    monkeypatch.setattr(program_cache, "_pack", lambda _: path.read_bytes())
    assert program_cache.load_or_compile(model, term, store) is not good
    assert compiled == []
    assert program_cache.load_or_compile(model, term, tmp_path) is good
    assert compiled == [model]
    (written,) = tmp_path.glob("*.zip")
    assert written.read_bytes() == path.read_bytes()


def test_a_resumed_compiled_run_ends_in_the_same_weights(
    mixed_water: Frames, store: Path, tmp_path: Path
) -> None:
    stage = Stage(task=FINETUNING, epochs=4, batch_size=2, lr=1e-2, compile=True)
    task, train = task_of(FINETUNING, mixed_water), torch.arange(3)

    def run(folder: Path, epochs: int) -> Potential:
        model = model_of("egnn")
        metrics = fit(model, task, stage, train, torch.tensor([3]), 0, folder, store)
        for _ in range(epochs):
            next(metrics, None)
        return model

    whole = run(tmp_path / "whole", 5)
    run(tmp_path / "killed", 2)
    resumed = run(tmp_path / "killed", 5)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_compiled_code_leaves_a_frozen_body_alone(mixed_water: Frames, store: Path) -> None:
    task, model = task_of(FINETUNING, mixed_water), model_of("gns")
    model.freeze_all_but_last(0)
    reference = copy.deepcopy(model)
    _, computed = gradients(model, task, torch.arange(3), compiled=True, store=store)
    _, expected = gradients(reference, task, torch.arange(3))
    torch.testing.assert_close(computed, expected, rtol=1e-8, atol=1e-10)
    assert any(gradient is None for gradient in computed)
    assert any(gradient is not None for gradient in computed)


@pytest.mark.parametrize(
    ("asked", "frames", "expected"),
    [
        (True, 1, True),
        ("if_possible", 1, True),
        (False, 10**6, False),
        (None, 200, True),
        (None, 198, False),
    ],
)
def test_long_stages_compile_unless_told(
    asked: bool | str | None,  # noqa: FBT001 - a parametrised value
    frames: int,
    expected: bool,  # noqa: FBT001
) -> None:
    stage = Stage(task=FINETUNING, epochs=COMPILED_FROM // 100, batch_size=2, compile=asked)
    assert compiles(stage, model_of("egnn"), frames) is expected


def test_without_a_compiler_only_those_who_insist_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    stage = Stage(task=FINETUNING, epochs=10**6, batch_size=1)
    assert not compiles(stage, model_of("egnn"), 100)
    wherever = stage.model_copy(update={"compile": "if_possible"})
    assert not compiles(wherever, model_of("egnn"), 100)
    with pytest.raises(UserError, match="g\\+\\+"):
        compiles(stage.model_copy(update={"compile": True}), model_of("egnn"), 100)


def test_each_class_of_sizes_ends_where_other_code_is_generated() -> None:
    bounds = training_compiler.SIZE_BOUNDS
    at = [size for bound in bounds for size in (bound, bound + 1)]
    assert training_compiler.size_classes(at) == [0, 1, 1, 2, 2, 3]
