"""Holes in a trial, and the ways to fill them.

A hole is a block with one key: `{choice: [a, b]}`, `{uniform: [low, high]}`,
`{loguniform: [low, high]}` or `{integer: [low, high]}`. Options of a choice may have holes. Beside
other keys, a `choice` of blocks stands for the whole block with one of these laid over it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from study.space.yaml_loader import Block

HOLES = ("choice", "uniform", "loguniform", "integer")
REAL = ("uniform", "loguniform")


class Proposer(Protocol):
    """What of an Optuna trial fills holes."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number."""


def overlaid(base: Block, over: Block) -> Block:
    """`base` with the keys of `over` on top, block by block.

    Holes and blocks of another `name`, or of which one has a `from`, are replaced as a whole: they
    share no keys worth keeping.
    """
    merged = Block(dict(base), base.lines | over.lines)
    for key, value in over.items():
        mine = base.get(key)
        if isinstance(value, Block) and isinstance(mine, Block) and not _replaces(mine, value):
            merged[key] = overlaid(mine, value)
        else:
            merged[key] = value
    return merged


def _replaces(old: Block, new: Block) -> bool:
    other_name = "name" in new and new["name"] != old.get("name")
    other_start = ("from" in new) != ("from" in old)
    return other_name or other_start or hole_of(old) is not None or hole_of(new) is not None


def spread(value: Any) -> Any:
    """The value with every `choice` that stands beside other keys made a choice of whole blocks."""
    if not isinstance(value, Block):
        return value
    options = value.get("choice")
    if not isinstance(options, list):
        return Block({key: spread(child) for key, child in value.items()}, value.lines)
    if len(value) > 1 and all(isinstance(option, Block) for option in options):
        rest = {key: child for key, child in value.items() if key != "choice"}
        options = [overlaid(Block(rest, value.lines), option) for option in options]
        value = Block({}, value.lines)
    return Block({**value, "choice": [spread(option) for option in options]}, value.lines)


def hole_of(value: Any) -> tuple[str, list[Any]] | None:
    """Kind and contents if the value is a hole."""
    if isinstance(value, Block) and len(value) == 1:
        ((kind, content),) = value.items()
        if kind in HOLES:
            return kind, content
    return None


def count(value: Any) -> int:
    """How many combinations there are; a range counts as one."""
    hole = hole_of(value)
    if hole:
        kind, content = hole
        return sum(count(option) for option in content) if kind == "choice" else 1
    if isinstance(value, Block):
        return math.prod(count(child) for child in value.values())
    return 1


def has_range(value: Any) -> bool:
    """Whether a number may come from a range somewhere in it."""
    hole = hole_of(value)
    if hole:
        kind, content = hole
        return kind != "choice" or any(has_range(option) for option in content)
    return isinstance(value, Block) and any(has_range(child) for child in value.values())


def combinations(value: Any) -> Iterator[Any]:
    """The value with its choices made in every possible way."""
    hole = hole_of(value)
    if hole:
        for option in hole[1]:
            yield from combinations(option)
    elif isinstance(value, Block):
        for children in itertools.product(*(list(combinations(child)) for child in value.values())):
            yield Block(dict(zip(value, children, strict=True)), value.lines)
    else:
        yield value


def variants(value: Any) -> Iterator[Any]:
    """The value with first choices and lower ends everywhere, then each other one in turn."""
    hole = hole_of(value)
    if hole:
        kind, content = hole
        for option in content:
            # What is drawn from these ranges is never whole, though their ends may be.
            yield from variants(float(option) if kind in REAL else option)
    elif isinstance(value, Block):
        children = {key: list(variants(child)) for key, child in value.items()}
        base = {key: options[0] for key, options in children.items()}
        yield Block(base, value.lines)
        for key, options in children.items():
            for option in options[1:]:
                yield Block(base | {key: option}, value.lines)
    else:
        yield value


def fill(value: Any, proposer: Proposer, name: str = "") -> Any:
    """The value with its holes filled by Optuna; conditional holes are asked only when reached."""
    hole = hole_of(value)
    if hole:
        kind, content = hole
        if kind == "choice":
            labels = _labels(content)
            label = proposer.suggest_categorical(name, labels)
            return fill(content[labels.index(label)], proposer, f"{name}.{label}")
        if kind == "integer":
            return proposer.suggest_int(name, *content)
        return proposer.suggest_float(name, *content, log=kind == "loguniform")
    if isinstance(value, Block):
        filled = {
            key: fill(child, proposer, f"{name}.{key}".lstrip(".")) for key, child in value.items()
        }
        return Block(filled, value.lines)
    return value


def listed(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Name of each hole, as `fill` tells it, and what may fill it."""
    hole = hole_of(value)
    if hole:
        kind, content = hole
        if kind == "choice":
            labels = ["null" if label is None else str(label) for label in _labels(content)]
            yield name, ", ".join(labels)
            for label, option in zip(labels, content, strict=True):
                yield from listed(option, f"{name}.{label}")
        else:
            yield name, f"{content[0]} to {content[1]}{', log' * (kind == 'loguniform')}"
    elif isinstance(value, Block):
        for key, child in value.items():
            yield from listed(child, f"{name}.{key}".lstrip("."))


def _labels(options: list[Any]) -> list[Any]:
    """Scalars stand for themselves, blocks for their name if it is unique, else their place."""
    names = [option.get("name") if isinstance(option, Block) else None for option in options]
    return [
        _label(place, option, unique=names.count(names[place]) == 1)
        for place, option in enumerate(options)
    ]


def _label(place: int, option: Any, *, unique: bool) -> Any:
    if not isinstance(option, Block):
        return option
    return option["name"] if unique and "name" in option else f"option {place}"


def problems_of_holes(value: Any, path: Path, place: str, *, grid: bool) -> list[str]:
    """What is wrong with the holes themselves, one line each.

    Args:
        value: a part of the trial.
        path: its file.
        place: dotted name of the part.
        grid: only choices are allowed.
    """
    if not isinstance(value, Block):
        return []
    hole = hole_of(value)
    if hole:
        kind, content = hole
        where = f"{path}:{value.lines[kind]}: {place}"
        if kind == "choice":
            return _problems_of_choice(content, path, place, where, grid=grid)
        return _problems_of_range(kind, content, where, grid=grid)
    found = [
        f"{path}:{value.lines[key]}: {place}: `{key}` must be the only key of its block"
        for key in HOLES
        if key in value
    ]
    for key, child in value.items():
        found += problems_of_holes(child, path, f"{place}.{key}", grid=grid)
    return found


def _problems_of_choice(
    content: Any, path: Path, place: str, where: str, *, grid: bool
) -> list[str]:
    if not isinstance(content, list) or not content:
        return [f"{where}: `choice` takes a list of options, such as {{choice: [1, 2]}}"]
    nested = [problems_of_holes(option, path, place, grid=grid) for option in content]
    return list(itertools.chain.from_iterable(nested))


def _problems_of_range(kind: str, content: Any, where: str, *, grid: bool) -> list[str]:
    if grid:
        return [f"{where}: `{kind}` needs a `search:` block; a grid takes {{choice: [...]}}"]
    kinds = (int,) if kind == "integer" else (int, float)
    pair = isinstance(content, list) and len(content) == 2
    if not pair or any(type(end) not in kinds for end in content):
        what = "whole numbers" if kind == "integer" else "numbers"
        return [f"{where}: `{kind}` takes two {what}, such as {{{kind}: [1, 10]}}"]
    low, high = content
    if not low < high or (kind == "loguniform" and low <= 0):
        rule = "0 < low < high" if kind == "loguniform" else "low < high"
        return [f"{where}: `{kind}` takes {rule}, but got {content}"]
    return []


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
