"""Tuning of every arm of a grid alike: the same proposals, drawn once, for each arm."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from study.core.hashing import digest
from study.space.distributions import count, has_range, hole_of, problems_of_holes
from study.space.ranges import RANGES, at_quantile
from study.space.ranges import values as values_of
from study.space.trial import Trial
from study.space.validation_errors import explain
from study.space.yaml_loader import Block, as_block

if TYPE_CHECKING:
    from study.space.settings import Tune

Values = dict[str, Any]
"""What a proposal puts into a trial, by dotted name."""

PRETRAINED_ONLY = ("pretrain.", "transfer")
"""Beginnings of names that a trial from scratch has no use for."""


def draw(tune: Tune) -> list[Values]:
    """Draw the proposals that every arm gets, always the same for the same settings.

    Choices alone are a grid of all of them. Ranges are cut evenly, ends included, into as many
    values as there are proposals; with several of them the values are dealt out at random, so that
    each value of each range is proposed once (a Latin hypercube), also to an arm that uses only
    some of them.
    """
    holes = {name: next(iter(hole.items())) for name, hole in tune.each_arm.items()}
    if tune.proposals is None:
        options = [content for _, content in holes.values()]
        return [dict(zip(holes, each, strict=True)) for each in itertools.product(*options)]
    generator, number = random.Random(tune.seed), tune.proposals
    columns: list[list[Any]] = []
    for kind, content in holes.values():
        order = generator.sample(range(number), number) if columns else range(number)
        columns.append([_value(kind, content, place, number) for place in order])
    return [dict(zip(holes, row, strict=True)) for row in zip(*columns, strict=True)]


def _value(kind: str, content: list[Any], place: int, number: int) -> Any:
    """One of `number` values of a hole, evenly spread; of a choice, its options in turn."""
    if kind == "choice":
        return content[place % len(content)]
    share = place / (number - 1)
    value = at_quantile(kind, content, share)
    rounded = share in (0, 1) or not isinstance(value, float) or RANGES[kind].step
    return value if rounded else float(f"{value:.4g}")


def used_values(trial: Trial, values: Values) -> Values:
    """The part of a proposal that a trial has a place for: one from scratch has no pretraining."""
    scratch = trial.pretrain is None
    return {
        name: value
        for name, value in values.items()
        if not (scratch and name.startswith(PRETRAINED_ONLY))
        and not (trial.start and name.startswith("pretrain."))
    }


def with_values(trial: Trial, values: Values) -> Trial:
    """The trial with each value in place of what stands at its name.

    Raises:
        ValidationError: if such a trial is not allowed.
    """
    return Trial.model_validate(_replaced(trial, values))


def _replaced(trial: Trial, values: Values) -> dict[str, Any]:
    settings = trial.model_dump(mode="json")
    for name, value in values.items():
        *blocks, key = name.split(".")
        block = settings
        for each in blocks:
            if not isinstance(block.get(each), dict):
                block[each] = {}  # It lacks keys, which the trial is then refused for.
            block = block[each]
        block[key] = value
    return settings


def identity_of_arm(trial: Trial, tuned: Collection[str]) -> str:
    """Hash of all that distinguishes arms: all but the seed and what is chosen for each arm."""
    settings = trial.model_dump(mode="json")
    for name in ("seed", *tuned):
        *blocks, key = name.split(".")
        block: Any = settings
        for each in blocks:
            block = block.get(each) if isinstance(block, dict) else None
        if isinstance(block, dict):
            block.pop(key, None)
    return digest(settings)


def problems_of_tuning(content: Block, path: Path) -> list[str]:
    """What is wrong with the holes of `tune.each_arm`, and with their number; a line each."""
    tune = content.get("tune")
    each_arm = tune.get("each_arm") if isinstance(tune, Block) else None
    if not isinstance(tune, Block) or not isinstance(each_arm, Block):
        return []
    found = list(itertools.chain(*(_problems_of_hole(each_arm, name, path) for name in each_arm)))
    return found or _problems_of_number(tune, each_arm, path)


def _problems_of_hole(each_arm: Block, name: str, path: Path) -> list[str]:
    value, place = each_arm[name], f"tune.each_arm.{name}"
    where = f"{path}:{each_arm.lines[name]}: {place}"
    if name.startswith("trial."):
        return [f"{where}: names stand below `trial` already; write {name.removeprefix('trial.')}"]
    if name.split(".")[0] in ("seed", "dataset", "split"):
        return [f"{where}: must be a setting of training, because arms are compared on equal data"]
    if hole_of(value) is None:
        return [
            f"{where}: must be a distribution, such as {{loguniform: [1e-4, 1e-2]}} or "
            f"{{choice: [1e-3, 3e-3]}}"
        ]
    if found := problems_of_holes(value, path, place, grid=False):
        return found
    _, content = hole_of(value) or ("", [])
    if any(count(option) != 1 or has_range(option) for option in content):
        return [f"{where}: takes whole values, without distributions in them"]
    return []


def _problems_of_number(tune: Block, each_arm: Block, path: Path) -> list[str]:
    proposals = tune.get("proposals")
    where = f"{path}:{tune.lines.get('proposals', tune.lines['each_arm'])}: tune.proposals"
    holes = [hole for name in each_arm if (hole := hole_of(each_arm[name]))]
    if all(kind == "choice" for kind, _ in holes):
        if proposals is None:
            return []
        return [f"{where}: must be left out where all is a choice: every combination is proposed"]
    if proposals is None:
        return [f"{where}: must say how many values of a range every arm gets, such as 6"]
    ranges = [(kind, content) for kind, content in holes if kind != "choice"]
    fewest = min((number for each in ranges if (number := values_of(*each))), default=proposals)
    if isinstance(proposals, int) and fewest < proposals:
        return [f"{where}: must be <= {fewest}, the numbers of the range, but got {proposals}"]
    return []


def problems_of_proposals(
    arms: list[Trial], tune: Tune, content: Block, path: Path
) -> Iterator[str]:
    """What is wrong with the trials that tuning would make of some arms; a line each.

    Args:
        arms: one trial of each.
        tune: how they are tuned.
        content: the space, for its lines.
        path: its file.
    """
    where = f"{path}:{content.lines.get('tune', 0)}: tune.each_arm"
    proposals = draw(tune)
    if len({identity_of_arm(arm, tune.each_arm) for arm in arms}) < len(arms):
        yield (
            f"{where}: some arms differ only in {', '.join(tune.each_arm)}, which is chosen for "
            "each arm; name it either in `trial` or here"
        )
    for arm in arms:
        if not used_values(arm, proposals[0]):
            yield (
                f"{where}: leaves nothing to tune of an arm from scratch or from given weights, so "
                "that arms would not be tuned alike; add a setting that all have, such as "
                "finetune.lr"
            )
        for values in proposals:
            yield from _problems_of_proposal(arm, used_values(arm, values), where, path)


def _problems_of_proposal(arm: Trial, values: Values, where: str, path: Path) -> list[str]:
    settings = as_block(_replaced(arm, values))
    try:
        Trial.model_validate(settings)
    except ValidationError as error:
        lines = explain(error, Trial, settings, path, ("trial",))
        return [f"{where}: {line.partition(': ')[2]}" for line in lines]
    return []
