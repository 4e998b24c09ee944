"""The same seed gives the same bits: again, in a fresh process, and cut into pieces.

`python -m tests.determinism` trains a small trial of every model in two processes; in the second
both stages also end and go on at 20 random steps. Weights and metrics must be equal in every bit.
On a GPU (`--device cuda`) that needs `deterministic`, which is chosen there; `--usual` leaves it
out, and shows by how much the weights differ then.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.datasets.frames import Frames
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.space.trial import Trial
from study.training.checkpoint import load_tensors
from study.training.loop import PausedError
from study.training.runtime import configure_process
from tests.benchmarks.water import water_box
from tests.native import NATIVE

FRAMES, BATCH = 16, 2
CUTS, EPOCHS = 20, 5
"""Of each stage; there are 6 steps in an epoch."""
SMALL: dict[str, dict[str, Any]] = {"gns": {"hidden": 16}, "forcenet": {"hidden": 16}}
"""Other settings than 8 features in 2 layers."""
CLOCKS = ("seconds", "joule")


@dataclass(frozen=True)
class Way:
    """How to train.

    Args:
        epochs: of each stage.
        device: torch device.
        deterministic: as in `resources:` of a space.
    """

    epochs: int = EPOCHS
    device: str = "cpu"
    deterministic: bool = True


class Cut:
    """Says at some steps that training must end; counts them, over all processes of the work.

    Args:
        steps: at which, from 1.
    """

    def __init__(self, steps: set[int]) -> None:
        self.steps, self.done, self.asked = steps, 0, False

    def __call__(self) -> bool:
        """Once before the first step, then after each."""
        if not self.asked:
            self.asked = True
            return False
        self.done += 1
        return self.done in self.steps


def trial_of(name: str, way: Way) -> Trial:
    """A small one of a model."""
    stage = {"batch_size": BATCH, "epochs": way.epochs, "lr": 0.005}
    model = {"name": name, "hidden": 8, "layers": 2, "cutoff": 3.4} | SMALL.get(name, {})
    return Trial.model_validate(
        {
            "dataset": {"name": "tip3p_water"},
            "split": {"by": "frame"},
            "model": model,
            "pretrain": stage | {"task": {"name": "masking", "masking_ratio": 0.5}},
            "finetune": stage | {"task": {"name": "energy_forces"}},
        }
    )


def train(
    name: str, way: Way, frames: Path, root: Path, cuts: dict[str, set[int]] | None = None
) -> dict[str, Any]:
    """Do both stages.

    Returns:
        By stage: file of the weights, metrics of all epochs and of the end, and steps.
    """
    trial = Job("trial", trial_of(name, way), Frames.load(frames).content_hash())
    assert trial.pretraining is not None
    return {
        work.stage: _perform(work, frames, root, way.device, (cuts or {}).get(work.stage, set()))
        for work in (trial.pretraining, trial)
    }


def _perform(work: Job, frames: Path, root: Path, device: str, steps: set[int]) -> dict[str, Any]:
    cut, ended = Cut(steps), 0
    while True:
        cut.asked = False
        try:
            list(run_job(work, root, frames, device, cut))
        except PausedError:
            ended += 1
        else:
            break
    assert ended == len(steps)
    outcome = load_outcome(work.folder(root))
    assert outcome is not None
    assert outcome.weights is not None
    records = [record.metrics for record in outcome.history] + [outcome.result.metrics]
    told = [
        {name: value for name, value in metrics.items() if not name.endswith(CLOCKS)}
        for metrics in records
    ]
    return {"weights": str(outcome.weights), "metrics": told, "steps": cut.done}


def _in_a_fresh_process(*arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(all_models, arguments)


def all_models(
    models: Sequence[str], way: Way, frames: Path, root: Path, cuts: int
) -> dict[str, list[dict[str, Any]]]:
    """What `train` says of each model, and if there are to be cuts, of the same in pieces."""
    configure_process(1, way.device, deterministic=way.deterministic)
    found = {}
    for name in models:
        whole = train(name, way, frames, root / "whole")
        found[name] = [whole]
        if cuts:
            rng = random.Random(name)
            steps = {
                stage: set(rng.sample(range(1, told["steps"]), cuts))
                for stage, told in whole.items()
            }
            found[name].append(train(name, way, frames, root / "cut", steps))
    return found


def differences(folder: Path, models: Sequence[str], way: Way, cuts: int) -> dict[str, float]:
    """Largest difference of weights by model and stage; 0 if weights and metrics are the same.

    Args:
        folder: to work in.
        models: names.
        way: to train them.
        cuts: of each stage.
    """
    frames = folder / "frames"
    water_box(8, FRAMES).save(frames)
    first = _in_a_fresh_process(models, way, frames, folder / "first", 0)
    second = _in_a_fresh_process(models[::-1], way, frames, folder / "second", cuts)
    return {
        f"{name}, {stage}": max(_apart(told, other[stage]) for other in second[name])
        for name in models
        for stage, told in first[name][0].items()
    }


def _apart(here: dict[str, Any], there: dict[str, Any]) -> float:
    ours, theirs = (load_tensors(Path(each["weights"])) for each in (here, there))
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    same = Path(here["weights"]).name == Path(there["weights"]).name
    return apart if same and here["metrics"] == there["metrics"] else max(apart, 1e-45)


def main() -> int:
    """Compare, and exit 1 if any bit differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.determinism", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=NATIVE, default=[*NATIVE])
    parser.add_argument("--cuts", type=int, default=CUTS, help="of each stage (default: 20)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--usual", action="store_true", help="on a GPU, not deterministic")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        way = Way(device=chosen.device, deterministic=not chosen.usual)
        apart = differences(Path(folder), chosen.models, way, chosen.cuts)
    for what, value in apart.items():
        sys.stdout.write(f"{what}: {'the same' if not value else f'apart by {value:.1e}'}\n")
    return int(any(apart.values()))


if __name__ == "__main__":
    sys.exit(main())
