"""Checks of a plan before anything runs, and its data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from study.core.errors import UserError
from study.core.hashing import digest
from study.core.provenance import cores, gpus, multiplies_bfloat16
from study.core.user_traceback import described
from study.datasets.config import DatasetConfig
from study.datasets.parsing.header import verified_header
from study.datasets.prepare import candidates, folder_of, prepare, sizes_of
from study.datasets.reading import Stored
from study.datasets.sources.remote import local
from study.models.config import OwnModel
from study.planning.plan import Plan
from study.planning.prepared_data import DataSets
from study.planning.study_changes import (
    require_same_data,
    require_same_datasets,
    require_same_study,
)
from study.space.plugin_configs import realized
from study.space.trial_checks import MissingLabelsError
from study.tasks.config import LabelledConfig
from study.tasks.metrics import try_out
from study.training.parallel.refusals import (
    can_compile_parts,
    require_enough_frames,
    require_independent_frames,
)

if TYPE_CHECKING:
    from study.models.potential import Potential
    from study.space.trial import Trial

SMALL_FILE = 20_000_000
"""Bytes of a file that a dry run reads, to check what is known only from its content."""


def check_plan(plan: Plan, *, on_cluster: bool) -> None:
    """Refuse what would mix numbers or never run.

    Args:
        plan: the plan.
        on_cluster: whether this machine need not have what a trial asks for.

    Raises:
        UserError: naming what changed, is damaged, does not suit or does not fit.
    """
    _require_packages(plan)
    _require_shareable(plan)
    require_same_study(plan.folder, plan.space)
    if not on_cluster:
        _check_resources(plan)
    folders = [folder_of(dataset, plan.root) for dataset in plan.datasets]
    require_same_datasets(plan.folder, {folder.name for folder in folders})
    for frames in folders:
        if frames.exists():
            verified_header(frames)
    _check_sizes(plan)


def check_own_models(plan: Plan) -> None:
    """Build a model of each of the user's own classes, before anything is paid or written.

    Raises:
        UserError: if it cannot be built, or its layers cannot be counted as some trial asks for.
    """
    if plan.grid and not plan.left:
        return
    built: dict[str, Potential] = {}
    for trial in plan.grid or plan.space.samples:
        if isinstance(trial.model, OwnModel):
            kind = f"{trial.model.name} {trial.model.sha256}"
            try:
                if kind not in built:
                    built[kind] = realized(trial, plan.root).model.build()
                _require_blocks(built[kind], trial)
                require_independent_frames(built[kind], plan.space.settings.resources.workers)
            except UserError as error:
                place = f"{plan.space.path}: trial.model: "
                raise UserError(*(place + problem for problem in error.problems)) from None
            # Whatever the user's code raises is the answer.
            except Exception as problem:
                raise UserError(f"{plan.space.path}: trial.model: {described(problem)}") from None


def check_own_metrics(plan: Plan) -> None:
    """Try each of the user's own metrics on made-up labels, before anything is paid or written.

    Raises:
        UserError: if one cannot be built, fails, or is not an error.
    """
    tried: set[str] = set()
    for trial in plan.grid or plan.space.samples:
        task = trial.finetune.task
        if not isinstance(task, LabelledConfig) or not task.metrics:
            continue
        known = digest([metric.model_dump(mode="json") for metric in task.metrics])
        if known in tried:
            continue
        tried.add(known)
        try:
            try_out(realized(task, plan.root).metrics, forces="forces" in task.labels)
        except UserError as error:
            place = f"{plan.space.path}: trial.finetune.task.metrics: "
            raise UserError(*(place + problem for problem in error.problems)) from None


def _require_blocks(model: Potential, trial: Trial) -> None:
    if trial.finetune.trainable_depth:
        model.require_blocks("trainable")
    if any(stage.layer_decay < 1 for stage in trial.stages):
        model.require_blocks("layer_decay")


def read_datasets(
    plan: Plan, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> None:
    """Read the data sets that are not simulated, while nothing else is written yet.

    Args:
        plan: the plan.
        progress: called with how many pieces of a large file are read, and of how many.

    Raises:
        UserError: if one cannot be read, or is too small for some trial.
    """
    for dataset in plan.datasets:
        if not dataset.simulated:
            prepare(dataset, plan.root, cores(), progress)
    _check_sizes(plan)


def prepare_datasets(plan: Plan, progress: Callable[[int, int], None]) -> DataSets:
    """Simulate or read all data sets.

    Args:
        plan: the plan.
        progress: called with how much of a simulation is done, and of how much.

    Raises:
        UserError: if one cannot be made, is too small for some trial, or has changed since the
            study began.
    """
    prepared = {each: prepare(each, plan.root, cores(), progress) for each in plan.datasets}
    data = DataSets(prepared)
    _check_sizes(plan)
    require_same_data(plan.folder, data.hashes)
    return data


def _require_packages(plan: Plan) -> None:
    """Refuse models whose package is not installed here."""
    models = {trial.model.name: trial.model for trial in plan.grid or plan.space.samples}
    missing = [
        f"{plan.space.path}: trial.model.name: {name} needs {model.package}, which is not "
        f"installed: `pip install -e '.[{model.extra}]'`, or leave {name} out"
        for name, model in models.items()
        if model.package and not model.package_version()
    ]
    if missing:
        raise UserError(*missing)


def _require_shareable(plan: Plan) -> None:
    """Refuse workers that would have no part of a batch, or none that can be compiled."""
    workers = plan.space.settings.resources.workers
    for trial in plan.grid or plan.space.samples:
        try:
            for stage in trial.stages:
                require_enough_frames(stage, workers)
                can_compile_parts(stage, workers)
        except UserError as problem:
            raise UserError(f"{plan.space.path}: resources: {problem}") from None


def _check_resources(plan: Plan) -> None:
    asked = plan.space.settings.resources
    here = {"cpus": (asked.total_cpus, cores()), "gpus": (asked.total_gpus, len(gpus()))}
    for name, (wants, has) in here.items():
        if wants > has and (name == "cpus" or gpus()):
            what = f"workers * {name}" if asked.workers > 1 else name
            raise UserError(
                f"{plan.space.path}: resources.{what}: must be <= {has}, as this machine has, "
                f"but got {wants:g}; ask for less, or run on a cluster with --address"
            )
    stages = [stage for trial in plan.grid or plan.space.samples for stage in trial.stages]
    on_gpu = asked.gpus > 0 and gpus()
    if not on_gpu and any(stage.precision == "tf32" for stage in stages):
        raise UserError(
            f"{plan.space.path}: precision: must be float32 or bf16 without a GPU, but got "
            "tf32; leave it out, or run on a cluster with --address"
        )


def machine_warnings(plan: Plan, *, on_cluster: bool) -> list[str]:
    """What this machine does badly, in words; nothing of a cluster's machines.

    A step in bfloat16 took 2.4 times as long as in float32 on an EPYC with AVX2 alone.
    """
    stages = [stage for trial in plan.grid or plan.space.samples for stage in trial.stages]
    on_gpu = plan.space.settings.resources.gpus > 0 and gpus()
    if on_cluster or on_gpu or multiplies_bfloat16():
        return []
    if not any(stage.precision == "bf16" for stage in stages):
        return []
    return ["bf16 is slower than float32 on this CPU, which has no unit for it; leave it out here"]


def check_small_files(plan: Plan) -> None:
    """Read the small files of a plan that no run has read yet; the plan keeps their sizes alone.

    Raises:
        UserError: if one cannot be read, or does not suit some trial.
    """
    unread = [
        dataset
        for dataset in plan.datasets
        if not dataset.simulated and sizes_of(dataset, plan.root) is None and _is_small(dataset)
    ]
    with TemporaryDirectory(prefix="study-") as folder:
        for dataset in unread:
            prepare(dataset, Path(folder), cores(), lambda _done, _total: None)
            if sizes := sizes_of(dataset, Path(folder)):
                plan.read[dataset] = sizes
        if unread:
            _check_sizes(plan, Path(folder))


def _is_small(dataset: DatasetConfig) -> bool:
    """Whether a data set is one file, which is read in some seconds."""
    place = getattr(dataset, "path", None) or ""
    path = local(place) if isinstance(dataset, Stored) else Path(place)
    return path.is_file() and path.stat().st_size <= SMALL_FILE


def _check_sizes(plan: Plan, unread: Path | None = None) -> None:
    problems = []
    for trial in plan.grid or plan.space.samples:
        try:
            trial.check_sizes(*map(plan.sizes_of, trial.datasets))
        except ValueError as problem:
            labels = " → ".join(dataset.label for dataset in reversed(trial.datasets))
            hint = _columns(problem, trial, [plan.root, *filter(None, [unread])])
            problems.append(f"{plan.space.path}: trial: {problem} ({labels}){hint}")
    if problems:
        raise UserError(*dict.fromkeys(problems))


def _columns(problem: ValueError, trial: Trial, roots: list[Path]) -> str:
    """Which columns of a file may be the labels that it lacks, and how to say so."""
    if not isinstance(problem, MissingLabelsError):
        return ""
    dataset = trial.datasets[-1 if problem.place == "pretrain.dataset" else 0]
    found = next(filter(None, (candidates(dataset, root) for root in roots)), {})
    named = {label: found[label] for label in problem.labels if label in found}
    if not named:
        return ""
    shown = "; ".join(f"{label} may be {', '.join(names)}" for label, names in named.items())
    pairs = ", ".join(f"{label}: {names[0]}" for label, names in named.items())
    key = f"trial.{problem.place}.labels"
    return f"; {shown}; say which in the space, as `{key}`, or with --set '{key}={{{pairs}}}'"
