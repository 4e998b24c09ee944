"""Whether the classes that a space names take what it says, asked of Optuna before the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from study.core.errors import one_line
from study.space.distributions import fill, named_holes
from study.space.search import optuna_classes
from study.space.search.population import NAME, PopulationBased, problems_of_population
from study.space.search.samplers import QUICK, OptunaSampler, OwnSampler, as_config
from study.space.search.start_with import parameters_of
from study.space.search.stopping import EarlyStopping, OptunaPruner
from study.space.settings import Search, Settings
from study.space.trial import Trial
from study.space.validation_errors import explain
from study.space.yaml_loader import Block

POPULATION_BASED = {
    "pbt": "`pbt` is a sampler, which needs no early stopping; write search: {trials: 8, sampler: "
    "{name: pbt, interval: 5}}",
    "pb2": "`pb2` is not offered: its parts in Ray are private; take `sampler: {name: pbt, "
    "interval: 5}`, which changes settings at random",
}
"""What to say of the names of Ray's population-based schedulers."""


def problems_of_classes(settings: Settings, content: Block, path: Path) -> list[str]:
    """What is wrong with sampler and pruner; a line each.

    Args:
        settings: of the space, without other problems.
        content: the space, for its lines.
        path: its file.
    """
    found = _population_based(content, path)
    if found:
        return found
    if settings.search is not None:
        found += _problems_of_sampler(settings.search.sampler, content, path)
    if settings.early_stopping is not None:
        rules = _unsuited_to_stopping(settings.search)
        found += [_line(content, ("early_stopping",), rule, path) for rule in rules]
        found += _problems_of_stopping(settings.early_stopping, content, path)
    return found


def problems_of_filling(
    search: Search,
    body: Block,
    propose: Callable[[Any], object],
    content: Block,
    path: Path,
) -> list[str]:
    """Why the distributions cannot be filled by the sampler, or with what the search starts with.

    Args:
        search: without other problems.
        body: the trial with its distributions.
        propose: fills these from a trial of Optuna.
        content: the space, for its lines.
        path: its file.
    """
    if search.population is not None:
        holes = [hole for hole, _, _ in named_holes(body)]
        problems = problems_of_population(search.population, holes, content)
        found = [_line(content, keys, rule, path) for keys, rule in problems]
    else:
        found = _problems_of_proposing(search, propose, content, path)
    return found or _problems_of_starts(body, content, path)


def _population_based(content: Block, path: Path) -> list[str]:
    """Say why population-based training is refused, wherever it is asked for."""
    found = []
    for keys in (("search", "sampler"), ("early_stopping",)):
        asked: Any = content
        for key in (*keys, "name"):
            asked = asked.get(key) if isinstance(asked, Block) else asked
        if asked in POPULATION_BASED and (asked, keys[0]) != (NAME, "search"):
            found.append(_line(content, keys, POPULATION_BASED[asked], path))
    return found


def _problems_of_sampler(
    sampler: str | OptunaSampler | OwnSampler | PopulationBased, content: Block, path: Path
) -> list[str]:
    config = as_config(sampler)
    if not isinstance(config, OptunaSampler) or (config.name in QUICK and not config.options):
        return []
    found = optuna_classes.problems(config.name, config.options, optuna_classes.SAMPLERS)
    return [_line(content, ("search", "sampler", *keys), rule, path) for keys, rule in found]


def _unsuited_to_stopping(search: Search | None) -> Iterator[str]:
    """Why the trials of a search cannot be stopped early."""
    if search is not None and search.population is not None:
        yield f"must be left out with `{NAME}`, which replaces what is bad by itself"
    if search is not None and search.objectives:
        yield (
            "must be left out with several `search.objectives`: a trial that is bad in one may be "
            "good in another"
        )


def _problems_of_stopping(
    stopping: EarlyStopping | OptunaPruner, content: Block, path: Path
) -> list[str]:
    if isinstance(stopping, EarlyStopping):
        return []
    found = optuna_classes.problems(stopping.name, stopping.options, optuna_classes.PRUNERS)
    return [_line(content, ("early_stopping", *keys), rule, path) for keys, rule in found]


def _problems_of_proposing(
    search: Search,
    propose: Callable[[Any], object],
    content: Block,
    path: Path,
) -> list[str]:
    config = as_config(search.sampler)
    if not isinstance(config, OptunaSampler) or config.name in QUICK:
        return []
    optuna = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = ["minimize"] * len(search.objectives or [""])
    study = optuna.create_study(sampler=config.for_proposal(0, 0), directions=directions)
    try:
        propose(study.ask())
    except Exception as problem:  # Each class has its own way to refuse a distribution.
        rule = f"{config.name} cannot propose in this space: {one_line(problem)}"
        return [_line(content, ("search", "sampler"), rule, path)]
    return []


def _problems_of_starts(body: Block, content: Block, path: Path) -> list[str]:
    found, search = [], content["search"]
    for number, values in enumerate(search.get("start_with", [])):
        place = f"{path}:{search.lines['start_with']}: search.start_with[{number}]"
        try:
            filled = fill(body, parameters_of(body, values))
        except ValueError as problem:
            found.append(f"{place}.{problem}")
            continue
        try:
            Trial.model_validate(filled)
        except ValidationError as error:
            lines = explain(error, Trial, filled, path, ("trial",))
            found += [f"{place}: {line.partition(': ')[2]}" for line in lines]
    return found


def _line(content: Block, keys: tuple[str, ...], rule: str, path: Path) -> str:
    """A problem with the file and the line of the deepest key that is there."""
    block, line = content, 1
    for key in keys:
        if not isinstance(block, Block) or key not in block:
            break
        line, block = block.lines.get(key, line), block[key]
    place = ".".join(keys[:-1] if keys[-1] == "name" else keys)
    return f"{path}:{line}: {place}: {rule}"
