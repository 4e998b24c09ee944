"""Whether the stages of a trial suit its data sets."""

from __future__ import annotations

from pathlib import Path

from study.core.quantities.elements import SYMBOLS
from study.datasets.sizes import Sizes, SplitBy
from study.datasets.split_config import Split
from study.space.distributions import count, has_range, hole_of
from study.space.yaml_loader import Block
from study.training.config import Stage

PLURALS = {"trajectory": "trajectories", "frame": "frames", "composition": "sum formulas"}


class MissingLabelsError(ValueError):
    """A data set lacks labels that a stage needs.

    Args:
        place: key of the data set.
        labels: that it lacks.
        rule: what is wrong.
    """

    def __init__(self, place: str, labels: list[str], rule: str) -> None:
        super().__init__(rule)
        self.place, self.labels = place, labels


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
    pretexts = [task for _, task in stage.task.pretexts("")]
    needed = dict.fromkeys(label for task in (stage.task, *pretexts) for label in task.labels)
    missing = [label for label in needed if label not in labels]
    if missing:
        raise MissingLabelsError(
            place,
            missing,
            f"`{place}` must be labelled with {' and '.join(missing)} for `{name}.task`, but has "
            f"{', '.join(labels) or 'no labels'}",
        )
    if "forces of" in partial and any(task.gives_forces for task in pretexts):
        raise ValueError(
            f"`{place}` must have forces of all frames for a task with `given: forces`, but has "
            f"{partial}; leave the other frames out"
        )


def check_split(split: Split, place: str, by: SplitBy, units: int) -> None:
    """Refuse a split that leaves nothing to train on.

    Args:
        split: of the trial.
        place: key of the data set.
        by: what the split deals out, of this data set.
        units: how many there are.
    """
    if split.counts(units)[0] >= 1:
        return
    numbers = {"test": None if split.folds else split.test, "validation": split.validation}
    fixed = [f"`split.{key}: {value}`" for key, value in numbers.items() if isinstance(value, int)]
    if fixed and units >= 3:
        rule = f" {PLURALS[by]}, too few for {' and '.join(fixed)}"
        ways = f"use fractions, as with --set 'trial.split={{by: {split.by}}}'"
    else:
        rule, ways = "", "take at least 3, or a smaller `split.test` or `split.validation`"
    ways += "" if by == "frame" else ", or `split: {by: frame}`"
    raise ValueError(
        f"`{place}` must leave a {by} to train on after validation and test, but has "
        f"{units}{rule}; {ways}"
    )


def check_elements(known: tuple[int, ...], place: str, sizes: Sizes) -> None:
    """Refuse a data set with elements for which a model has no weights.

    Args:
        known: atomic numbers of the model; none if it takes all.
        place: key of the data set.
        sizes: of the data set.
    """
    lacking = [SYMBOLS[number - 1] for number in sizes.elements if known and number not in known]
    if lacking:
        raise ValueError(
            f"`model.elements` must name all elements of `{place}`, but lacks "
            f"{', '.join(lacking)}; add them, or take a start that knows them"
        )


def check_tasks(name: str, stage: Stage, sizes: Sizes) -> None:
    """Refuse a stage one of whose tasks cannot work on its data set."""
    for place, task in stage.task.pretexts(f"{name}.task"):
        task.check_frames(place, sizes)


def problems_of_searched_data(body: Block, path: Path) -> list[str]:
    """All data sets of a search must be known beforehand: they are made before it begins."""
    dataset = body.get("dataset")
    hole = hole_of(dataset)
    options = hole[1] if hole and hole[0] == "choice" else [dataset]
    if all(count(option) == 1 and not has_range(option) for option in options):
        return []
    return [
        f"{path}:{body.lines['dataset']}: trial.dataset: a search takes whole data sets, such as "
        "{choice: [{name: ...}, {name: ...}]}, without holes in them"
    ]
