"""What `python -m study.check` examines and shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pydantic import ValidationError

from study.checks import (
    dataset_contract,
    metric_contract,
    model_contract,
    sampler_contract,
    task_contract,
)
from study.checks.training_contract import unnamed_layers
from study.core import user_code
from study.core.config import Component
from study.core.errors import UserError, printable
from study.datasets.config import DatasetConfig
from study.datasets.diagnostics import warnings
from study.models.config import ModelConfig
from study.space.plugin_configs import SHIPPED
from study.space.search.samplers import SamplerConfig
from study.tasks.base_config import MetricConfig
from study.tasks.config import TaskConfig

SMALL = {"hidden": 8, "layers": 2}
"""Settings of a checked model, so that all checks take seconds."""


def check(code: str) -> int:
    """Show what the checks say of what a file or module defines; 1 if any failed, else 0.

    Raises:
        UserError: if there is nothing to check.
    """
    return int(sum(map(_check, subjects(code))) > 0)


def subjects(code: str) -> list[Component]:
    """What a file or module defines, with small settings.

    Raises:
        UserError: if it cannot be run, defines nothing, or a setting has no default.
    """
    found = []
    for kind in user_code.classes(user_code.load(code)[0]):
        name = user_code.name_of(kind, code, SHIPPED)
        small = SMALL if issubclass(kind, ModelConfig) else {}
        try:
            found.append(kind.model_validate(small | {"name": name}))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{code}: {kind.__name__}.{place}: {first['msg']}; give a default"
            ) from None
    if not found:
        raise UserError(
            f"{code}: must define a class derived from `study.plugins.ModelConfig`, "
            "`study.plugins.TaskConfig`, `study.plugins.DatasetConfig`, "
            "`study.plugins.MetricConfig` or `study.plugins.SamplerConfig`, but has none"
        )
    return found


def examine(subject: Component) -> Iterator[tuple[str, str]]:
    """Name of every check, and what is wrong; empty if nothing is."""
    match subject:
        case ModelConfig():
            return model_contract.examine(subject.build, subject)
        case TaskConfig():
            return task_contract.examine(subject.build)
        case DatasetConfig():
            return dataset_contract.examine(subject.build)
        case MetricConfig():
            return metric_contract.examine(subject)
        case SamplerConfig():
            return sampler_contract.examine(subject)
        case _:
            raise TypeError(f"{subject!r} is no model, task, data set, metric or sampler")


def _check(subject: Component) -> int:
    """Show what the checks say; how many failed."""
    failed, told = 0, set[str]()
    for name, problem in examine(subject):
        failed += bool(problem)
        sys.stdout.write(f"{'failed' if problem else 'ok':<7} {name}\n")
        if problem:
            sys.stdout.write(printable(f"        {'as above' if problem in told else problem}\n"))
            told.add(problem)
    for line in () if failed else _remarks(subject):
        sys.stdout.write(printable(f"warning {line}\n"))
    kind = type(subject).__name__
    sys.stdout.write(f"{kind}: {failed} failed\n" if failed else f"{kind}: ok\n")
    return failed


def _remarks(subject: Component) -> list[str]:
    """What is no fault of a part that passed, but good to know."""
    if isinstance(subject, DatasetConfig):
        return warnings(subject.build())
    if isinstance(subject, ModelConfig):
        return [*filter(None, [unnamed_layers(subject.build())])]
    return []
