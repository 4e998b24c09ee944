"""What a study prints of itself before it begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console

from study.console.formatting import counted, duration
from study.core.provenance import cores, gpus
from study.datasets.config import DatasetConfig
from study.datasets.prepare import folder_of, remark_on
from study.planning.plan import Plan
from study.planning.stages import one_per_pretraining
from study.space.distributions import listed
from study.space.search.samplers import as_config
from study.space.trial import Trial
from study.space.tuning import draw


def print_plan_summary(plan: Plan, console: Console) -> None:
    """Print the plan in a few lines."""
    settings = plan.space.settings
    console.print(settings.question, style="bold")
    done = plan.over or sum(plan.is_done(trial, trial.finetune) for trial in plan.grid)
    console.print(f"  trials   {_trials_in_words(plan)}{_done_in_words(done)}")
    console.print(f"  stages   {', '.join(_stages_in_words(plan))}")
    for name in dict.fromkeys(trial.start.name for trial in plan.space.samples if trial.start):
        console.print(f"  weights  pretrained: {name}; its cost is not counted")
    if plan.former:
        console.print(f"  learns   from {plan.former}")
    for line in plan.warnings:
        console.print(f"  warning  {line}")
    if plan.audit:
        console.print(f"  audit    finishes {plan.audit} randomly drawn stopped trials")
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
        arms = counted(len(plan.reported) // len(settings.seeds), "arm")
        tuning = f"{_tuning_in_words(plan)}, then " if plan.tuning else ""
        return f"{plan.trials}: {tuning}{arms} × {seeds}"
    # What is from scratch itself has no baseline, and may be the best.
    mixed = any(trial.pretrain is None for trial in plan.space.samples)
    total = f"{'up to ' * (mixed and plan.repeats_from_scratch)}{plan.trials} in total"
    return f"{'; '.join(_search_in_words(plan))}: {total}{_parts_in_words(plan)}"


def _parts_in_words(plan: Plan) -> str:
    """What counts as a trial of population-based training; nothing of another search."""
    counts = plan.counts
    if not counts.tests:
        return ""
    runs, parts = counted(counts.trainings, "finetuning run"), counted(counts.generations, "part")
    return f" ({runs} × {parts} + {counted(counts.tests, 'test')})"


def _tuning_in_words(plan: Plan) -> str:
    """How many trials choose what, for every arm alike."""
    tune = plan.space.settings.tune
    assert tune is not None
    proposals, names = len(draw(tune)), " and ".join(tune.each_arm)
    trials = counted(len(plan.tuning), "tuning trial")
    return f"{trials} (each arm {proposals} proposals of {names}, seed {tune.seed})"


def _search_in_words(plan: Plan) -> Iterator[str]:
    """What is sampled, and what of it is rerun."""
    settings = plan.space.settings
    search = settings.search
    assert search is not None
    name = as_config(search.sampler).label
    if search.population is not None:
        yield f"a population of {search.trials} ({name}), {plan.counts.generations} generations"
        if search.repeat_best:
            yield f"schedule of the best {search.repeat_best}{_rerun_in_words(plan)}"
        return
    rule = settings.early_stopping
    stopping = f", early stopping by {rule.label}" if rule else ""
    yield f"{counted(search.trials, 'trial')} sampled by Optuna ({name}){stopping}"
    if search.repeat_best:
        yield f"best {search.repeat_best}{_rerun_in_words(plan)}"


def _rerun_in_words(plan: Plan) -> str:
    """With how many seeds the best are rerun."""
    scratch = ", also from scratch" if plan.repeats_from_scratch else ""
    return f" rerun with {counted(len(plan.space.settings.seeds), 'seed')}{scratch}"


def _stages_in_words(plan: Plan) -> Iterator[str]:
    """Both stages with their lengths, and their runs as far as these are known before."""
    samples = plan.space.samples
    pretrained = [trial for trial in samples if trial.pretraining]
    if pretrained:
        epochs = _either(trial.pretraining.epochs for trial in pretrained if trial.pretraining)
        if plan.grid:
            done = sum(plan.is_done(*stage) for stage in plan.pretraining_stages)
            runs = counted(len(plan.pretrainings), "pretraining run")
            yield f"{runs} × {epochs} epochs" + f" ({done} already done)" * (done > 0)
        elif count := _pretrainings_of_search(plan, pretrained):
            yield f"{counted(count, 'pretraining run')} × {epochs} epochs"
        else:
            yield f"pretraining runs × {epochs} epochs (identical ones run once)"
    runs = counted(plan.counts.trainings, "finetuning run")
    limit = "up to " if plan.space.settings.early_stopping else ""
    yield f"{runs} × {limit}{_either(trial.finetune.epochs for trial in samples)} epochs"


def _pretrainings_of_search(plan: Plan, pretrained: list[Trial]) -> int:
    """How many there are if only finetuning is searched: one for each seed; else 0, for unknown."""
    settings = plan.space.settings
    if not all(name.startswith("finetune.") for name, _ in listed(plan.space.body)):
        return 0
    repeats = settings.search is not None and settings.search.repeat_best
    return len(one_per_pretraining(pretrained)) * (len(settings.seeds) if repeats else 1)


def _machine() -> str:
    return ", ".join(gpus()) if gpus() else counted(cores(), "core")


def _data_in_words(plan: Plan, dataset: DatasetConfig) -> str:
    if seconds := plan.seconds_to_make(dataset):
        verb = "simulated" if dataset.simulated else "read"
        return f"to be {verb} (~{duration(seconds)})"
    if not folder_of(dataset, plan.root).exists():
        return "built by your code"
    remark = remark_on(dataset, plan.root)
    return "cached" + (f"; labels: {remark}" if remark else "")


def _done_in_words(count: int) -> str:
    """How much of a grid is done already, by this study or another; of a search, by this."""
    return f", {count} already done" if count else ""


def _either(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(set(numbers))))
