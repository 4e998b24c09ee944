"""Whether the stages of a trial suit its data sets."""

from __future__ import annotations

from study.datasets.sizes import Sizes
from study.tasks.config import Denoising, EnergyForces, Masking, Mixed, OwnTask, Scalar
from study.training.config import LABELLED, Stage


def check_published(name: str, stage: Stage, place: str, published: tuple[int, ...]) -> None:
    """Refuse a stage that the published split of its data set does not suit."""
    if not all(published):
        raise ValueError(
            f"`{place}` must have a published split with all three parts for `split: {{by: "
            f"published}}`, but has {list(published)} frames in them; split it by something else"
        )
    if stage.frames and stage.frames > published[0]:
        raise ValueError(
            f"`{name}.frames` must be <= {published[0]}, the frames published to train on, but got "
            f"{stage.frames}"
        )


def check_labels(name: str, stage: Stage, place: str, sizes: Sizes) -> None:
    """Refuse a stage whose data set lacks labels that it needs."""
    labels, partial = sizes.labels, sizes.partial_labels
    needed = stage.task.labels if isinstance(stage.task, LABELLED) else ()
    if any(gives_forces(task) for _, task in pretexts(name, stage)):
        needed = tuple(dict.fromkeys((*needed, "forces")))
    missing = [label for label in needed if label not in labels]
    if missing:
        raise ValueError(
            f"`{place}` must be labelled with {' and '.join(missing)} for `{name}.task`, but has "
            f"{', '.join(labels) or 'no labels'}"
        )
    if "forces of" in partial and any(gives_forces(task) for _, task in pretexts(name, stage)):
        raise ValueError(
            f"`{place}` must have forces of all frames for a task with `given: forces`, but has "
            f"{partial}; leave the other frames out"
        )


def gives_forces(task: Denoising | Masking | OwnTask) -> bool:
    """Whether a task tells the network forces."""
    return isinstance(task, Denoising) and task.given == "forces"


def check_masks(name: str, stage: Stage, waters: int) -> None:
    """Refuse a stage that has too little water to mask."""
    for place, masking in pretexts(name, stage):
        if not isinstance(masking, Masking) or masking.within != "water":
            continue
        if waters == 0:
            raise ValueError(
                f"`{place}` must have frames of nothing but water to mask; elsewhere mask "
                "`within: bonds`"
            )
        if int(masking.masking_ratio * waters) < 1:
            raise ValueError(
                f"`{place}.masking_ratio` must hide an atom in every frame, but "
                f"int({masking.masking_ratio} * {waters} molecules) is 0; raise it"
            )


def pretexts(name: str, stage: Stage) -> list[tuple[str, Denoising | Masking | OwnTask]]:
    """Every pretext task of a stage, with its place."""
    task, place = stage.task, f"{name}.task"
    match task:
        case Mixed():
            return [(place, part.task) for part in task.tasks]
        case EnergyForces() | Scalar():
            auxiliary = task.auxiliary
            return [(f"{place}.auxiliary.task", auxiliary.task)] if auxiliary else []
        case _:
            return [(place, task)]
