"""Whether the classes that a space names take what it says, asked of Optuna before the start."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from study.core.errors import one_line
from study.space.search import optuna_classes
from study.space.search.samplers import QUICK, OptunaSampler, OwnSampler, as_config
from study.space.search.stopping import EarlyStopping, OptunaPruner
from study.space.yaml_loader import Block


def problems_of_sampler(
    sampler: str | OptunaSampler | OwnSampler, content: Block, path: Path
) -> list[str]:
    """What is wrong with a sampler of Optuna; a line each.

    Args:
        sampler: as the space names it.
        content: the space, for its lines.
        path: its file.
    """
    config = as_config(sampler)
    if isinstance(config, OwnSampler) or (config.name in QUICK and not config.options):
        return []
    found = optuna_classes.problems(config.name, config.options, optuna_classes.SAMPLERS)
    return [_line(content, ("search", "sampler", *keys), rule, path) for keys, rule in found]


def problems_of_stopping(
    stopping: EarlyStopping | OptunaPruner, content: Block, path: Path
) -> list[str]:
    """What is wrong with a pruner of Optuna; a line each, see `problems_of_sampler`."""
    if isinstance(stopping, EarlyStopping):
        return []
    found = optuna_classes.problems(stopping.name, stopping.options, optuna_classes.PRUNERS)
    return [
        _line(
            content,
            ("early_stopping", *keys),
            rule.replace("must be one of ", "must be one of asha, "),
            path,
        )
        for keys, rule in found
    ]


def problems_of_proposing(
    sampler: str | OptunaSampler | OwnSampler,
    propose: Callable[[Any], object],
    content: Block,
    path: Path,
) -> list[str]:
    """Why a sampler of Optuna cannot fill these distributions.

    Args:
        sampler: as the space names it, without other problems.
        propose: fills the distributions from a trial of Optuna.
        content: the space, for its lines.
        path: its file.
    """
    config = as_config(sampler)
    if isinstance(config, OwnSampler) or config.name in QUICK:
        return []
    optuna = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=config.for_proposal(0, 0))
    try:
        propose(study.ask())
    except Exception as problem:  # Each class has its own way to refuse a distribution.
        rule = f"{config.name} cannot draw from these distributions: {one_line(problem)}"
        return [_line(content, ("search", "sampler"), rule, path)]
    return []


def _line(content: Block, keys: tuple[str, ...], rule: str, path: Path) -> str:
    """A problem with the file and the line of the deepest key that is there."""
    block, line = content, 1
    for key in keys:
        if not isinstance(block, Block) or key not in block:
            break
        line, block = block.lines.get(key, line), block[key]
    place = ".".join(keys[:-1] if keys[-1] == "name" else keys)
    return f"{path}:{line}: {place}: {rule}"
