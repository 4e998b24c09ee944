"""Holes in a trial, and the ways to fill them.

A hole is a block with one key: `{choice: [a, b]}`, or a range such as `{uniform: [low, high]}`
(`study.space.ranges`). Options of a choice may have holes. Beside other keys, a `choice` of blocks
stands for the whole block with one of these laid over it, and null for nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.space.ranges import RANGES, Proposer, at_quantile, described, problem, suggested
from study.space.search.option_names import labels_of
from study.space.yaml_loader import Block

HOLES = ("choice", *RANGES)


@dataclass(frozen=True)
class Hole:
    """A place that the walk through a trial has come to.

    Args:
        name: that a sampler knows it by: the place, with the options that lead there.
        place: dotted name in the trial.
        base: name of the innermost choice around it.
        inner: dotted name within an option of that choice.
        common: inner names at which the options of that choice have the same distribution, which
            is one parameter, whichever option is taken.
    """

    name: str = ""
    place: str = ""
    base: str = ""
    inner: str = ""
    common: frozenset[str] = frozenset()

    def at(self, key: str) -> Hole:
        """A key of the block here."""
        joined = (f"{above}.{key}".lstrip(".") for above in (self.name, self.place, self.inner))
        name, place, inner = joined
        if inner in self.common:
            name = f"{self.base}.{inner}".lstrip(".")
        return Hole(name, place, self.base, inner, self.common)

    def option(self, label: Any, options: list[Any]) -> Hole:
        """An option of the choice here."""
        name = f"{self.parameter}.{label}"
        return Hole(name, self.place, self.name, "", _common(options))

    @property
    def parameter(self) -> str:
        """The name; of a choice between whole trials, `arm`."""
        return self.name or "arm"


def _common(options: list[Any]) -> frozenset[str]:
    """Inner names of distributions that are the same in all options which have one there."""
    found: dict[str, list[Any]] = {}
    for option in options:
        for name, value in _outer_holes(option, ""):
            found.setdefault(name, []).append(value)
    alike = (name for name, same in found.items() if same.count(same[0]) == len(same) > 1)
    return frozenset(filter(None, alike))


def _outer_holes(value: Any, inner: str) -> Iterator[tuple[str, Any]]:
    """Holes of an option by inner name, without those in options of its own choices."""
    if hole_of(value):
        yield inner, value
    elif isinstance(value, Block):
        for key, child in value.items():
            yield from _outer_holes(child, f"{inner}.{key}".lstrip("."))


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
    if len(value) > 1 and all(option is None or isinstance(option, Block) for option in options):
        rest = Block({key: child for key, child in value.items() if key != "choice"}, value.lines)
        options = [option if option is None else overlaid(rest, option) for option in options]
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
        ends = [] if kind == "choice" else [at_quantile(kind, content, end) for end in (0, 1)]
        for option in ends or content:
            yield from variants(option)
    elif isinstance(value, Block):
        children = {key: list(variants(child)) for key, child in value.items()}
        base = {key: options[0] for key, options in children.items()}
        yield Block(base, value.lines)
        for key, options in children.items():
            for option in options[1:]:
                yield Block(base | {key: option}, value.lines)
    else:
        yield value


Choose = Callable[[Hole, str, list[Any]], Any]
"""Gives what fills a hole, by its kind and content: a number, or a label for labels."""


def fill(value: Any, choose: Choose, hole: Hole | None = None) -> Any:
    """The value with its holes filled; conditional holes are asked only when reached."""
    here, inner = hole or Hole(), hole_of(value)
    if inner:
        kind, content = inner
        if kind != "choice":
            return choose(here, kind, content)
        labels = labels_of(content, here.place)
        label = choose(here, kind, labels)
        return fill(content[labels.index(label)], choose, here.option(label, content))
    if isinstance(value, Block):
        filled = {key: fill(child, choose, here.at(key)) for key, child in value.items()}
        return Block(filled, value.lines)
    return value


def by_optuna(proposer: Proposer) -> Choose:
    """Let a trial of Optuna fill the holes."""

    def choose(hole: Hole, kind: str, content: list[Any]) -> Any:
        if kind == "choice":
            return proposer.suggest_categorical(hole.parameter, content)
        return suggested(kind, content, proposer, hole.parameter)

    return choose


def named_holes(value: Any) -> Iterator[tuple[Hole, str, list[Any]]]:
    """Each hole once, with its kind, and its numbers or the labels of its options."""
    known: set[str] = set()
    for hole, kind, content in _all_holes(value, Hole()):
        if hole.parameter not in known:
            known.add(hole.parameter)
            yield hole, kind, content


def listed(value: Any) -> Iterator[tuple[str, str]]:
    """Name of each hole, as `fill` tells it, and what may fill it."""
    for hole, kind, content in named_holes(value):
        labels = ["null" if label is None else str(label) for label in content]
        words = ", ".join(labels) if kind == "choice" else described(kind, content)
        yield hole.parameter, words


def _all_holes(value: Any, here: Hole) -> Iterator[tuple[Hole, str, list[Any]]]:
    inner = hole_of(value)
    if inner and inner[0] == "choice":
        labels = labels_of(inner[1], here.place)
        yield here, "choice", labels
        for label, option in zip(labels, inner[1], strict=True):
            yield from _all_holes(option, here.option(label, inner[1]))
    elif inner:
        yield here, *inner
    elif isinstance(value, Block):
        for key, child in value.items():
            yield from _all_holes(child, here.at(key))


def problems_of_holes(value: Any, path: Path, place: str, *, grid: bool) -> list[str]:
    """What is wrong with the holes themselves, one line each.

    Args:
        value: a part of the trial.
        path: its file.
        place: dotted name of the part.
        grid: only choices are allowed.
    """
    if isinstance(value, list):
        lines = itertools.islice(_lines_of_holes(value), 1)
        return [f"{path}:{line}: {place}: {IN_LIST}" for line in lines]
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
        f"{path}:{value.lines[key]}: {place}: {_only_key(key)}" for key in HOLES if key in value
    ]
    for key, child in value.items():
        found += problems_of_holes(child, path, f"{place}.{key}", grid=grid)
    return found


IN_LIST = "a list takes no distributions within it; write {choice: [[...], [...]]}, of whole lists"


def _lines_of_holes(value: Any) -> Iterator[int]:
    if isinstance(value, Block):
        yield from (value.lines[kind] for kind in HOLES if kind in value)
    for child in value.values() if isinstance(value, Block) else value:
        if isinstance(child, Block | list):
            yield from _lines_of_holes(child)


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
    wrong = problem(kind, content)
    return [f"{where}: {wrong}"] if wrong else []


def _only_key(kind: str) -> str:
    if kind == "choice":
        return "`choice` beside other keys takes blocks to lay over these, or null in their place"
    return f"`{kind}` must be the only key of its block; it takes {RANGES[kind].form}"
