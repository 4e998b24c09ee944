"""What a dry run tells: every arm, what of it is done, and what is left to pay."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from study import run
from study.console import dry_run
from study.console.dry_run import DryRun
from study.console.formatting import duration
from study.console.plan_summary import print_plan_summary
from study.datasets.frames import Frames
from study.datasets.readers.detect import settings_of
from study.models.build import build_model
from study.planning import plan
from study.planning.cost_model import Cost, stage_memory, weights
from study.planning.plan import Plan
from study.planning.plan_checks import check_small_files, read_datasets
from study.planning.remaining_cost import Experience, RemainingCost
from study.planning.study_dir import StudyDir
from study.space.search_space import SHIPPED, load_space
from study.space.trial import Trial
from tests.conftest import SMALL_SPACE
from tests.formats import write_extxyz

TIP3P = {"name": "tip3p_water", "molecules": 258, "trajectories": 10, "frames": 1000}


def plan_of(path: Path, profile: str = "quick") -> Plan:
    return Plan(load_space(str(path), profile), path.parent / "runs", "name", "")


def estimate(given: Plan) -> Cost:
    return RemainingCost(given).cost(Experience(given, on_gpu=DryRun(given).on_gpu))


def shown(given: Plan, *, every_arm: bool = False) -> str:
    console = Console(width=150)
    with console.capture() as captured:
        view = DryRun(given, every_arm=every_arm)
        view.show(console)
        view.show_cost(console, estimate(given), "estimated")
    return captured.get()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A space of two arms and two seeds."""
    path = tmp_path / "ratio.yaml"
    path.write_text(SMALL_SPACE)
    return path


@pytest.fixture
def done(small: Path, small_study: StudyDir) -> Plan:
    """Its plan in a folder where all work is done."""
    given = plan_of(small)
    shutil.copytree(small_study.root, given.root)
    return given


def test_the_estimate_is_what_one_reckons_by_hand(small: Path) -> None:
    # 4 trajectories of 3 frames: 2 train, 1 validates. 24 atoms have 16.5 neighbours in 3.4 Å,
    # so of 20 epochs and 2 layers with 8 features each takes, in s,
    epoch = 2 * ((6 + 0.35 * 3) / 2 * 0.004 + (6 + 0.35 * 3) * 24 * 16.5 * (6e-7 + 8 * 4e-8))
    seconds = (4 * 20 + 2 * 2) * epoch
    cost = estimate(plan_of(small))
    # Six workers start in 1 to 5 s.
    assert cost.seconds == pytest.approx((0.4 * seconds + 6, 1.6 * seconds + 30), rel=0.01)


def test_nothing_is_left_of_what_is_done(done: Plan) -> None:
    told = shown(done).splitlines()
    assert [line.split() for line in told[1:3]] == [
        ["egnn", "scratch", "0,", "1", "2", "of", "2"],
        ["egnn", "masking", "0.5", "0,", "1", "2", "of", "2", "2", "of", "2"],
    ]
    assert "  compute  nothing left to do" in told


def test_what_is_missing_is_left_with_the_pretraining_it_needs(done: Plan) -> None:
    masked = next(trial for trial in done.grid if trial.pretrain)
    work = done.known.work(masked)
    assert work.pretraining is not None
    other = done.known.work(masked.model_copy(update={"seed": 1 - masked.seed})).pretraining
    assert other is not None
    shutil.rmtree(other.folder(done.root))  # Nobody needs it any more.
    for piece, stages in ((work, [masked.finetune]), (work.pretraining, masked.stages)):
        shutil.rmtree(piece.folder(done.root))
        again = Plan(done.space, done.root, "name", "")
        assert [stage for _, stage in again.left] == list(stages)
    assert "egnn masking 0.5  0, 1   1 of 2     0 of 2" in shown(again)
    assert "2 arms × 2 seeds, 3 already done" in words(again)
    assert "2 pretraining runs × 2 epochs, 4 finetuning runs × 20 epochs" in words(again)


def test_a_beginning_study_says_how_long_what_is_left_takes(small: Path, done: Plan) -> None:
    def told(given: Plan) -> str:
        console = Console(width=150)
        with console.capture() as captured:
            DryRun(given).show_time(console, estimate(given))
        return captured.get()

    assert told(done) == "  time     nothing left to do\n"
    fresh = Plan(done.space, small.parent / "elsewhere", "name", "")
    low, high = (
        duration(seconds / fresh.slots + fresh.seconds_of_making + beside)
        for seconds, beside in zip(estimate(fresh).seconds, dry_run.OVERHEAD, strict=True)
    )
    assert told(fresh).startswith(f"  time     {low} to {high}, ")


def test_checkpoints_of_stopped_trials_count_until_an_audit(small: Path) -> None:
    small.write_text("search: {trials: 7, repeat_best: 0}\n" + SMALL_SPACE)
    without = plan_of(small)
    small.write_text("early_stopping: {}\n" + small.read_text())
    stopping = plan_of(small)
    # Model, two moments and the best weights, in two checkpoints.
    expected = 7 * 2 * 4 * weights(stopping.typical)
    assert estimate(stopping).disk - estimate(without).disk == pytest.approx(expected)


def test_trials_at_once_that_want_more_than_the_machine_has_are_told(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = plan_of(small)
    monkeypatch.setattr(Plan, "slots", 4)
    each = estimate(given).memory
    for has, told in ((4.1, []), (3.9, ["--max-concurrent 3"]), (1.5, ["--max-concurrent 1"])):
        here = {"memory_gb": has * each / 2**30}
        monkeypatch.setattr(dry_run, "hardware", lambda here=here: here)
        line = next(line for line in shown(given).splitlines() if "memory" in line)
        assert line.split(": ")[1:] == told


def test_what_a_file_costs_is_no_figure_before_it_has_been_read(small: Path, water: Frames) -> None:
    write_extxyz(water, small.parent / "w.extxyz")
    dataset = json.dumps(settings_of(small.parent / "w.extxyz"))
    small.write_text(re.sub("dataset: .*", f"dataset: {dataset}", SMALL_SPACE))
    given = plan_of(small)
    told = " ".join(shown(given).split())
    place = re.escape(str(small.parent / "w.extxyz"))
    command = rf"`python -m study\.data import {place} --out {re.escape(str(given.root))}`"
    assert re.search(
        rf"compute not known before .*w.extxyz is read; do that first with {command}", told
    )
    assert "hours" not in told
    small_file = plan_of(small)
    check_small_files(small_file)
    estimated = shown(small_file)
    assert "core-hours" in estimated
    assert not given.root.exists()
    read_datasets(given)
    assert "core-hours" in shown(Plan(given.space, given.root, "name", ""))


def words(given: Plan) -> str:
    console = Console(width=150)
    with console.capture() as captured:
        print_plan_summary(given, console)
    return captured.get()


def test_many_arms_are_cut_unless_all_are_asked_for(small: Path) -> None:
    ratios = ", ".join(f"{0.2 + 0.02 * number:.2f}" for number in range(40))
    small.write_text(
        SMALL_SPACE.replace("masking_ratio: 0.5", f"masking_ratio: {{choice: [{ratios}]}}")
    )
    given = plan_of(small)
    assert " and 11 more; list them with -v" in shown(given)
    everything = shown(given, every_arm=True)
    assert "more" not in everything
    assert everything.count("egnn masking") == 40


def test_a_search_tells_what_it_varies_and_ranges_from_its_cheapest_to_its_dearest() -> None:
    given = Plan(load_space(str(SHIPPED / "full_search.yaml"), "quick"), Path("no"), "name", "")
    told = [" ".join(line.split()) for line in shown(given).splitlines()]
    assert "model egnn, gns, schnet" in told
    assert "model.gns.layers 2 to 4" in told
    assert "finetune.lr 0.0005 to 0.01, log" in told
    low, high = estimate(given).seconds
    assert (
        0 < low < 15 * sum(given.seconds_of(given.typical, s) for s in given.typical.stages) < high
    )


@pytest.mark.parametrize(("two_cores", "processes"), [("cpus: 2", 1), ("workers: 2", 2)])
def test_a_trial_on_two_cores_is_not_slower_and_takes_both(
    small: Path, two_cores: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "cores", lambda: 5)
    before = estimate(plan_of(small))
    small.write_text(f"resources: {{{two_cores}}}\n{SMALL_SPACE}")
    after, one = estimate(plan_of(small)), before.seconds
    two = after.seconds
    assert after.memory == processes * before.memory
    assert plan_of(small).slots == 2
    assert two[0] - 6 == pytest.approx((one[0] - 6) / 2)
    assert two[1] == one[1]
    assert f"to {2 * two[1] / 3600:.2g} core-hours" in shown(plan_of(small))


def test_a_gpu_is_promised_no_more_than_its_kernels_allow(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cores = estimate(plan_of(small)).seconds
    for module in (plan, dry_run):
        monkeypatch.setattr(module, "gpus", lambda: ("H200",))
    small.write_text(f"resources: {{gpus: 1}}\n{SMALL_SPACE}")
    on_gpu = estimate(plan_of(small)).seconds
    assert 6 < on_gpu[0] < on_cores[0]
    assert on_gpu[1] == on_cores[1]
    assert "GPU-hours" in shown(plan_of(small))


@pytest.mark.parametrize("name", ["egnn", "gns", "forcenet", "schnet", "visnet"])
@pytest.mark.parametrize(("hidden", "layers"), [(32, 3), (128, 5)])
def test_weights_are_about_as_many_as_the_model_has(name: str, hidden: int, layers: int) -> None:
    trial = trial_of(name, hidden, layers)
    model = build_model(trial.model, 0)
    exactly = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert weights(trial) == pytest.approx(exactly, rel=0.2)


def trial_of(name: str, hidden: int, layers: int) -> Trial:
    return Trial.model_validate(
        {
            "dataset": TIP3P | {"frames": 30},
            "model": {"name": name, "hidden": hidden, "layers": layers},
            "pretrain": None,
            "finetune": {"task": {"name": "energy_forces"}, "epochs": 1, "batch_size": 10},
        }
    )


@pytest.mark.parametrize(
    ("name", "measured"), [("egnn", 9.6e9), ("gns", 4.1e9), ("forcenet", 3.6e9)]
)
def test_memory_is_about_what_was_measured(name: str, measured: float) -> None:
    """Peak of a process that trained on 10 frames of 774 atoms a step, with 128 features."""
    trial = trial_of(name, 128, 4)
    sizes = trial.dataset.sizes
    assert sizes is not None
    assert stage_memory(trial, trial.finetune, sizes) == pytest.approx(measured, rel=0.2)


def test_a_json_line_has_every_arm_and_nothing_is_written(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(small.parent / "runs")
    options = ["--space", str(small), "--profile", "quick", "--out", out, "--dry-run", "--json"]
    assert run.main(options) == 0
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert [arm["label"] for arm in told["arms"]] == ["egnn scratch", "egnn masking 0.5"]
    assert told["arms"][1]["settings"]["pretrain.task.masking_ratio"] == 0.5
    assert told["pretrainings"] == {"unique": 2, "done": 0}
    assert told["seconds"][0] < told["seconds"][1]
    assert [path.name for path in small.parent.iterdir()] == [small.name]


def test_a_dry_run_imports_neither_torch_nor_mlflow(small: Path) -> None:
    program = (
        "import sys\nfrom study.run import main\nmain(sys.argv[1:])\n"
        "assert not {'torch', 'mlflow', 'ray', 'pandas'} & set(sys.modules)"
    )
    options = ["--space", str(small), "--profile", "quick", "--dry-run"]
    subprocess.run([sys.executable, "-c", program, *options], check=True, capture_output=True)
