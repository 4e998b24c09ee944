"""What a study tells of itself before it begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console

from study.console.formatting import counted, duration
from study.core.provenance import cores, gpus
from study.datasets.config import DatasetConfig
from study.datasets.prepare import folder_of, remark_on
from study.planning.plan import Plan


def introduce(plan: Plan, console: Console) -> None:
    """Tell the user, in a few lines, what comes."""
    settings = plan.space.settings
    console.print(settings.question, style="bold")
    done = plan.over or sum(plan.is_done(trial, trial.finetune) for trial in plan.grid)
    console.print(f"  trials   {_trials_in_words(plan)}{_done_in_words(done)}")
    console.print(f"  stages   {'; '.join(_stages_in_words(plan))}")
    for name in dict.fromkeys(trial.start.name for trial in plan.space.samples if trial.start):
        console.print(f"  start    {name}, done before; what it cost is not counted")
    for line in plan.warnings:
        console.print(f"  warning  {line}")
    if plan.audit:
        console.print(f"  audit    finishes {plan.audit} stopped trials, drawn at random")
    for dataset in plan.datasets:
        console.print(f"  data     {dataset.label}; {_data_in_words(plan, dataset)}")
    console.print(f"  results  {plan.folder.path}")


def parallel(plan: Plan) -> str:
    """How much is done at once on what, in words."""
    return f"{counted(plan.slots, 'trial')} at a time on {_machine()}"


def _trials_in_words(plan: Plan) -> str:
    settings = plan.space.settings
    seeds = counted(len(settings.seeds), "seed")
    if settings.search is None:
        arms = plan.trials // len(settings.seeds)
        return f"{plan.trials}: {counted(arms, 'arm')} × {seeds}"
    return (
        f"{settings.search.trials} proposed by Optuna ({settings.search.sampler})"
        + (", ASHA stops early" if settings.early_stopping else "")
        + f"; then the best {settings.search.repeat_best} with {seeds}"
        + (", also from scratch" if settings.baseline else "")
        + f": {plan.trials} in all"
    )


def _stages_in_words(plan: Plan) -> Iterator[str]:
    """Both stages with their lengths; of a search, pretrainings cannot be counted before."""
    samples = plan.space.samples
    if any(trial.pretraining for trial in samples):
        epochs = _either(trial.pretraining.epochs for trial in samples if trial.pretraining)
        if plan.grid:
            done = sum(plan.is_done(*stage) for stage in plan.pretraining_stages)
            count = counted(len(plan.pretrainings), "different pretraining")
            yield f"{count} of {epochs} epochs{_done_in_words(done)}"
        else:
            yield f"pretrainings of {epochs} epochs, equal ones once"
    yield f"finetunings of {_either(trial.finetune.epochs for trial in samples)} epochs"


def _machine() -> str:
    return ", ".join(gpus()) if gpus() else counted(cores(), "core")


def _data_in_words(plan: Plan, dataset: DatasetConfig) -> str:
    if seconds := plan.seconds_to_make(dataset):
        return f"made here, about {duration(seconds)}"
    if not folder_of(dataset, plan.root).exists():
        return "made by your code"
    remark = remark_on(dataset, plan.root)
    return "made already" + (f"; labels: {remark}" if remark else "")


def _done_in_words(count: int) -> str:
    """How much of a grid is done already, by this study or another; of a search, by this."""
    return f", {count} done already" if count else ""


def _either(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(set(numbers))))
