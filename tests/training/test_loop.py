"""The training loop: it learns, and neither crash nor damage changes one bit of what it learns."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.potential import ConservativePotential
from study.space.trial import Trial
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.tasks.masking import Masking
from study.tasks.task import Task, Term
from study.training.config import Stage
from study.training.loop import DivergenceError, PausedError, fit

ARMS = ["masking", "displacement", "energy_forces"]


EPOCHS = 4


Metrics = list[dict[str, float]]


@dataclass
class Bench:
    """A stage of one arm, ready to be run again and again from a new model."""

    arm: str
    graphs: GraphSet
    settings: Trial
    train: Tensor = field(default_factory=lambda: torch.tensor([0, 3, 6, 1, 4]))
    validation: Tensor = field(default_factory=lambda: torch.tensor([9, 10, 11]))

    def stage(self, **changes: Any) -> Stage:
        trial = self.settings
        stage = trial.finetune if self.arm == "energy_forces" else trial.pretrain
        assert stage is not None
        return stage.model_copy(update={"epochs": EPOCHS, **changes})

    def model(self) -> ConservativePotential:
        output = "displacement" if self.arm == "displacement" else "gradient"
        return build_model(self.settings.model.model_copy(update={"vector_output": output}), seed=1)

    def task(self, model: ConservativePotential) -> Task:
        settings = self.stage().task
        if self.arm != "energy_forces":
            return Masking(settings, self.graphs)
        statistics = LabelStatistics.fit(self.graphs, self.train)
        statistics.apply(model, settings)
        return EnergyForces(settings, self.graphs, statistics)

    def run(
        self,
        folder: Path | None = None,
        *,
        crash: int | None = None,
        seed: int = 0,
        stage: dict[str, Any] | None = None,
        ending: Callable[[], bool] = lambda: False,
    ) -> tuple[Metrics, dict[str, Tensor]]:
        """Metrics, without the seconds, and weights; a crash ends it after so many epochs."""
        model = self.model()
        task, stage = self.task(model), self.stage(**stage or {})
        training = fit(
            model, task, stage, self.train, self.validation, seed, folder, should_stop=ending
        )
        metrics = list(itertools.islice(training, crash))
        cleaned = [
            {k: v for k, v in epoch.items() if not k.endswith(("seconds", "joule"))}
            for epoch in metrics
        ]
        return cleaned, model.state_dict()


@pytest.fixture(scope="module", params=ARMS)
def bench(request: pytest.FixtureRequest, water: Frames, tiny: Callable[..., Trial]) -> Bench:
    return Bench(request.param, GraphSet.build(water, 3.4), tiny())


@pytest.fixture(scope="module")
def whole(bench: Bench) -> tuple[Metrics, dict[str, Tensor]]:
    """The uninterrupted run."""
    return bench.run()


def assert_bitwise(
    actual: tuple[Metrics, dict[str, Tensor]], expected: tuple[Metrics, dict[str, Tensor]]
) -> None:
    assert actual[0] == expected[0]
    assert actual[1].keys() == expected[1].keys()
    for name, value in actual[1].items():
        assert torch.equal(value, expected[1][name]), name


@pytest.mark.parametrize(
    ("arm", "limit"), [("masking", 0.85), ("displacement", 0.75), ("energy_forces", 0.5)]
)
def test_training_brings_the_validation_error_well_below_the_trivial_one(
    arm: str, limit: float, water: Frames, tiny: Callable[..., Trial]
) -> None:
    bench = Bench(arm, GraphSet.build(water, 3.4), tiny(), torch.arange(8))
    # Each repetition hides other hydrogens.
    bench.validation = torch.arange(8, 12).repeat(8)
    metrics, _ = bench.run(stage={"epochs": 20, "lr": 0.01})
    trivial = 1.0
    if arm == "energy_forces":
        model = bench.model()
        task = bench.task(model)
        trivial = task.trivial_errors(model, [bench.validation])["force_rmse"]
    name = "val_force_rmse" if arm == "energy_forces" else "val_loss"
    assert metrics[-1][name] < limit * trivial


@pytest.mark.parametrize("crash", range(1, EPOCHS + 1))
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    bench: Bench, whole: tuple[Metrics, dict[str, Tensor]], crash: int, tmp_path: Path
) -> None:
    before, _ = bench.run(tmp_path, crash=crash)
    assert len(before) == crash
    assert_bitwise(bench.run(tmp_path), whole)


def test_a_run_that_crashes_in_every_epoch_is_bitwise_the_uninterrupted_one(
    bench: Bench, whole: tuple[Metrics, dict[str, Tensor]], tmp_path: Path
) -> None:
    for crash in range(1, EPOCHS + 1):
        bench.run(tmp_path, crash=crash)
    assert_bitwise(bench.run(tmp_path), whole)


STEPS = 3
"""Of an epoch: five frames, two at a time."""


class After:
    """Says so at the n-th step, by its answer or by dying."""

    def __init__(self, steps: int, problem: type[Exception] | None = None) -> None:
        self.left, self.problem = steps, problem

    def __call__(self) -> bool:
        self.left -= 1
        if self.problem is not None and not self.left:
            raise self.problem
        return not self.left


def test_a_run_that_ends_at_any_step_goes_on_bitwise_from_there(
    bench: Bench, whole: tuple[Metrics, dict[str, Tensor]], tmp_path: Path
) -> None:
    for cut in range(1, STEPS * EPOCHS + 1):
        folder, rest = tmp_path / str(cut), After(1000)
        with pytest.raises(PausedError):
            bench.run(folder, ending=After(cut))
        assert_bitwise(bench.run(folder, ending=rest), whole)
        assert 1000 - rest.left == STEPS * EPOCHS - cut


def test_a_run_that_ends_after_every_step_is_bitwise_the_uninterrupted_one(
    bench: Bench, tmp_path: Path
) -> None:
    averaged = {"ema": 0.5}
    for _ in range(STEPS * EPOCHS):
        with pytest.raises(PausedError):
            bench.run(tmp_path, ending=After(1), stage=averaged)
    assert_bitwise(bench.run(tmp_path, stage=averaged), bench.run(stage=averaged))


def test_a_long_epoch_writes_checkpoints_that_a_crash_leaves(
    bench: Bench,
    whole: tuple[Metrics, dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("study.training.loop.CHECKPOINT_EVERY", 0)
    with pytest.raises(KeyError):
        bench.run(tmp_path, ending=After(STEPS + 3, KeyError))
    rest = After(1000)
    assert_bitwise(bench.run(tmp_path, ending=rest), whole)
    # The step at whose end it died is done again.
    assert 1000 - rest.left == STEPS * EPOCHS - (STEPS + 2)


def test_checkpoints_do_not_change_training(
    bench: Bench, whole: tuple[Metrics, dict[str, Tensor]], tmp_path: Path
) -> None:
    assert_bitwise(bench.run(tmp_path), whole)


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def truncate(content: bytes) -> bytes:
    return content[:-1]


def empty(content: bytes) -> bytes:
    del content
    return b""


@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_damaged_newest_checkpoint_costs_one_epoch_and_no_bit(
    bench: Bench,
    whole: tuple[Metrics, dict[str, Tensor]],
    damage: Callable[[bytes], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench.run(tmp_path, crash=3)
    newest = max(tmp_path.iterdir())
    newest.write_bytes(damage(newest.read_bytes()))
    trained = []
    original = Bench.task

    def counting(self: Bench, model: ConservativePotential) -> Task:
        task = original(self, model)
        evaluate = task.evaluate
        task.evaluate = lambda *arguments: trained.append(1) or evaluate(*arguments)
        return task

    monkeypatch.setattr(Bench, "task", counting)
    assert_bitwise(bench.run(tmp_path), whole)
    # Epochs 3 and 4; the first two come from the older checkpoint.
    assert len(trained) == 2


def test_damage_to_all_checkpoints_costs_all_epochs_and_no_bit(
    bench: Bench, whole: tuple[Metrics, dict[str, Tensor]], tmp_path: Path
) -> None:
    bench.run(tmp_path, crash=3)
    for path in tmp_path.iterdir():
        path.write_bytes(flip(path.read_bytes()))
    assert_bitwise(bench.run(tmp_path), whole)


def test_a_crash_before_the_first_checkpoint_starts_anew(
    bench: Bench, whole: tuple[Metrics, dict[str, Tensor]], tmp_path: Path
) -> None:
    (tmp_path / ".epoch-00000001-x.safetensors.abc.tmp").write_bytes(b"half a file")
    assert_bitwise(bench.run(tmp_path), whole)


def test_a_seed_decides_every_bit(bench: Bench, whole: tuple[Metrics, dict[str, Tensor]]) -> None:
    torch.manual_seed(123)
    assert_bitwise(bench.run(), whole)
    assert bench.run(seed=1)[0] != whole[0]


def test_training_leaves_the_global_random_state_alone(bench: Bench, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    bench.run(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("clock", ["seconds", "cpu_seconds"])
def test_compute_adds_up_over_crashes(
    clock: str, water: Frames, tiny: Callable[..., Trial], tmp_path: Path
) -> None:
    bench = Bench("masking", GraphSet.build(water, 3.4), tiny())
    model = bench.model()
    task, stage = bench.task(model), bench.stage()
    seconds = []
    for epochs in (2, EPOCHS):
        training = fit(bench.model(), task, stage, bench.train, bench.validation, 0, tmp_path)
        metrics = itertools.islice(training, epochs)
        seconds.append([epoch[clock] for epoch in metrics])
    assert seconds[1][:2] == seconds[0]
    assert 0 < seconds[1][0] < seconds[1][1] < seconds[1][2] < seconds[1][3]


class OneWeight(torch.nn.Module):
    """The smallest model."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def layer_depth(self, _name: str) -> int:
        return 0


@dataclass
class Script:
    """A task with given criterion values that notes what the loop does with it."""

    values: list[float]
    slope: float = 100.0
    criterion: str = "val_loss"
    graphs: Any = field(
        default_factory=lambda: SimpleNamespace(
            device=torch.device("cpu"), evaluation_batches=lambda frames, _: [frames]
        )
    )
    batches: list[list[int]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    draws: list[float] = field(default_factory=list)
    modes: list[bool] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    lost: str = ""
    other: float = 0.0
    """Another error than the criterion."""

    def divergence_reason(self, metrics: dict[str, float]) -> str:
        assert metrics["val_loss"] == self.values[len(self.weights) - 1]
        return self.lost

    def terms(self, frames: Tensor, generator: torch.Generator, step: int = 0) -> list[Term]:
        self.steps.append(step)
        self.batches.append(frames.tolist())
        self.draws.append(float(torch.rand((), generator=generator)))
        return [Term("slope", self.penalty, Batch())]

    def penalty(self, model: Any, batch: Batch) -> Tensor:
        del batch
        self.modes.append(model.training)
        return self.slope * model.weight

    def evaluate(
        self, model: Any, batches: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        self.weights.append(model.weight.item())
        self.modes.append(model.training)
        self.batches.append([-1, *torch.cat(batches).tolist()])
        self.draws.append(-float(torch.rand((), generator=generator)))
        return {"val_loss": self.values[len(self.weights) - 1], "val_other": self.other}


def play(
    script: Script, tiny: Callable[..., Trial], *, frames: int = 4, **changes: Any
) -> tuple[Metrics, float]:
    """Metrics and final weight; weights fall by about the learning rate in every step."""
    stage = tiny().pretrain
    assert stage is not None
    plain = {"epochs": len(script.values), "batch_size": 2, "weight_decay": 0.0, **changes}
    model = OneWeight()
    training = fit(
        model, script, stage.model_copy(update=plain), torch.arange(frames), torch.arange(90, 95), 0
    )
    return list(training), model.weight.item()


@pytest.mark.parametrize(
    ("select", "values", "epoch"),
    [
        ("best", [3.0, 1.0, 2.0], 2),
        ("best", [1.0, 2.0, 3.0], 1),
        ("best", [3.0, 2.0, 1.0], 3),
        ("best", [2.0, 1.0, 1.0], 2),
        ("last", [3.0, 1.0, 2.0], 3),
    ],
)
def test_the_model_ends_with_the_selected_weights(
    select: str, values: list[float], epoch: int, tiny: Callable[..., Trial]
) -> None:
    script = Script(values)
    _, weight = play(script, tiny, select=select)
    assert len(set(script.weights)) == 3
    assert weight == script.weights[epoch - 1]


def test_the_best_weights_survive_a_crash(tiny: Callable[..., Trial], tmp_path: Path) -> None:
    stage = tiny().pretrain.model_copy(update={"epochs": 3})
    first = Script([1.0, 2.0])
    training = fit(OneWeight(), first, stage, torch.arange(4), torch.arange(2), 0, tmp_path)
    next(training), next(training)
    model = OneWeight()
    list(fit(model, Script([3.0]), stage, torch.arange(4), torch.arange(2), 0, tmp_path))
    assert model.weight.item() == first.weights[0]


def test_the_learning_rate_falls_along_half_a_cosine(tiny: Callable[..., Trial]) -> None:
    metrics, _ = play(Script([1.0] * 4), tiny, frames=2, lr=0.1, min_lr=0.02)
    # 0.02 + 0.08 (1 + cos kπ/4) / 2 at steps k = 0, 1, 2, 3.
    expected = [0.1, 0.0882842712, 0.06, 0.0317157288]
    assert [epoch["lr"] for epoch in metrics] == pytest.approx(expected, rel=1e-8)


def test_the_learning_rate_rises_stays_and_falls(tiny: Callable[..., Trial]) -> None:
    shape = {"lr": 0.1, "min_lr": 0.02, "warmup": 1.6, "plateau": 1.4}
    metrics, _ = play(Script([1.0] * 5), tiny, frames=2, **shape)
    # 0.02 + 0.08 k / 1.6 at steps k = 0, 1; 0.1 at 2 and 3; 0.02 + 0.08 (1 + cos π/2) / 2 at 4.
    expected = [0.02, 0.07, 0.1, 0.1, 0.06]
    assert [epoch["lr"] for epoch in metrics] == pytest.approx(expected, rel=1e-8)


def test_a_schedule_must_leave_epochs_to_fall_in(tiny: Callable[..., Trial]) -> None:
    with pytest.raises(ValueError, match=r"`warmup \+ plateau` must be less than the 3 epochs"):
        tiny(finetune__epochs=3, finetune__warmup=2, finetune__plateau=1)


def test_layers_learn_the_slower_the_farther_they_are_from_the_readout(bench: Bench) -> None:
    """The first step of Adam moves weights by their learning rate, whatever the gradient is."""
    model = bench.model()
    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    one_step = {"epochs": 1, "batch_size": 8, "lr": 0.01, "optimizer": "adam"}
    stage = bench.stage(**one_step, weight_decay=0.0, layer_decay=0.5, select="last")
    list(fit(model, bench.task(model), stage, bench.train, bench.validation, 0))
    steps = {"readout": 0.01, "layers.1": 0.005, "layers.0": 0.0025, "embedding": 0.00125}
    if bench.arm == "displacement":
        del steps["readout"]  # Displacements do not depend on it.
    for start, step in steps.items():
        moved = [
            float((weights.detach() - before[name]).abs().max())
            for name, weights in model.named_parameters()
            if name.startswith(start)
        ]
        assert max(moved) == pytest.approx(step, rel=1e-2)


def test_the_learning_rate_falls_in_every_step(tiny: Callable[..., Trial]) -> None:
    # 4 frames in batches of 2: the epochs end with steps 1 and 3 of 4.
    metrics, _ = play(Script([1.0] * 2), tiny, lr=0.1, min_lr=0.02)
    expected = [0.0882842712, 0.0317157288]
    assert [epoch["lr"] for epoch in metrics] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("slope", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_divergence(slope: float, tiny: Callable[..., Trial]) -> None:
    # The slope times a weight of zero is not a number.
    with pytest.raises(DivergenceError, match="training loss is nan in epoch 1"):
        play(Script([1.0], slope=slope), tiny)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_criterion_that_is_not_finite_is_divergence(
    value: float, tiny: Callable[..., Trial]
) -> None:
    with pytest.raises(DivergenceError, match="val_loss is not finite in epoch 2"):
        play(Script([1.0, value]), tiny)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_error_that_is_not_finite_is_reported(value: float, tiny: Callable[..., Trial]) -> None:
    with pytest.raises(DivergenceError, match="val_other is not finite in epoch 1"):
        play(Script([1.0], other=value), tiny)


def test_a_gradient_beyond_numbers_is_divergence(tiny: Callable[..., Trial]) -> None:
    with pytest.raises(DivergenceError, match="grad_norm is not finite in epoch 1"):
        play(Script([1.0], slope=3e38), tiny, clip_norm=None)


def test_a_diverged_epoch_leaves_no_checkpoint(tiny: Callable[..., Trial], tmp_path: Path) -> None:
    stage = tiny().pretrain.model_copy(update={"epochs": 3})
    training = fit(
        OneWeight(), Script([1.0, math.nan]), stage, torch.arange(4), torch.arange(2), 0, tmp_path
    )
    next(training)
    with pytest.raises(DivergenceError):
        next(training)
    assert [path.name[:14] for path in tmp_path.iterdir()] == ["epoch-00000001"]


@pytest.mark.parametrize(("clip_norm", "step"), [(None, 0.1), (1e-8, 0.05), (1e-10, 0.1 / 101)])
def test_the_gradient_is_clipped_to_its_largest_norm(
    clip_norm: float | None, step: float, tiny: Callable[..., Trial]
) -> None:
    # The first step of Adam is lr · g / (|g| + 1e-8).
    _, weight = play(Script([1.0]), tiny, frames=2, lr=0.1, clip_norm=clip_norm)
    assert weight == pytest.approx(-step, rel=1e-4)


def test_the_gradient_norm_is_reported_before_clipping(tiny: Callable[..., Trial]) -> None:
    (metrics,), _ = play(Script([1.0]), tiny, clip_norm=1e-3)
    assert metrics["grad_norm"] == pytest.approx(100)


def test_every_epoch_shows_every_frame_once_in_a_new_order(tiny: Callable[..., Trial]) -> None:
    script = Script([1.0] * 3)
    play(script, tiny, frames=40, batch_size=16)
    batches = [batch for batch in script.batches if batch[0] != -1]
    assert [len(batch) for batch in batches] == [16, 16, 8] * 3
    epochs = [functools.reduce(operator.iadd, batches[i : i + 3], []) for i in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_stage_sees_no_more_than_its_frames(tiny: Callable[..., Trial]) -> None:
    stage = tiny().pretrain.model_copy(update={"epochs": 5, "batch_size": 4, "frames": 7})
    few = Script([1.0] * 5)
    list(fit(OneWeight(), few, stage, torch.arange(40), torch.arange(2), 0))
    seen = {frame for batch in few.batches if batch[0] != -1 for frame in batch}
    assert seen == set(range(7))


def test_steps_draw_new_numbers_and_validations_the_same(tiny: Callable[..., Trial]) -> None:
    script = Script([1.0] * 3)
    play(script, tiny)
    drawn = [number for number in script.draws if number >= 0]
    validation = {number for number in script.draws if number < 0}
    assert len(set(drawn)) == len(drawn) == 6
    assert len(validation) == 1


def test_the_model_is_in_training_mode_for_losses_alone(tiny: Callable[..., Trial]) -> None:
    script = Script([1.0] * 2)
    play(script, tiny)
    assert script.modes == [True, True, False] * 2


def test_all_validation_frames_are_evaluated(tiny: Callable[..., Trial]) -> None:
    script = Script([1.0])
    play(script, tiny)
    assert script.batches[-1] == [-1, 90, 91, 92, 93, 94]


@pytest.mark.parametrize("epoch", [1, 2, 15])
def test_a_hopeless_task_is_given_up_after_a_tenth_of_the_epochs(
    epoch: int, tiny: Callable[..., Trial]
) -> None:
    script = Script([1.0] * epoch + [0.0] * (15 - epoch))
    script.lost = "far off"
    with pytest.raises(DivergenceError, match="far off in epoch 2"):
        play(script, tiny, epochs=15)


def test_the_average_of_the_weights_is_what_is_judged_and_kept(tiny: Callable[..., Trial]) -> None:
    plain, averaged = Script([1.0] * 3), Script([1.0] * 3)
    _, last = play(plain, tiny, select="last")
    _, kept = play(averaged, tiny, select="last", ema=0.9)
    # Adam's steps do not depend on the average; two steps of an epoch move it twice.
    average, path = 0.0, []
    for epoch, weight in enumerate(plain.weights):
        before = plain.weights[epoch - 1] if epoch else 0.0
        path += [(before + weight) / 2, weight]
    assert last == plain.weights[-1]
    for weight in path:
        average += 0.1 * (weight - average)
    assert kept == averaged.weights[-1]
    assert kept == pytest.approx(average, rel=0.02)


def test_a_resumed_run_keeps_its_average(tiny: Callable[..., Trial], water: Frames) -> None:
    bench = Bench("masking", GraphSet.build(water, 3.4), tiny())
    whole = bench.run(stage={"ema": 0.5})
    assert whole[0] != bench.run()[0]


@pytest.mark.parametrize("crash", [1, 2])
def test_a_resumed_run_with_an_average_is_bitwise_the_uninterrupted_one(
    crash: int, tiny: Callable[..., Trial], water: Frames, tmp_path: Path
) -> None:
    bench = Bench("masking", GraphSet.build(water, 3.4), tiny())
    metrics, weights = bench.run(stage={"ema": 0.5})
    bench.run(tmp_path, crash=crash, stage={"ema": 0.5})
    again, resumed = bench.run(tmp_path, stage={"ema": 0.5})
    assert again == metrics
    assert all(torch.equal(resumed[name], value) for name, value in weights.items())
