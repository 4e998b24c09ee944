"""Does a model of your own keep what studies rely on? `python -m study.check my_model.py`.

The file defines a class derived from `ConservativePotential` or `DirectPotential`, and one derived
from `Network` with its settings and its `name`; the model is built as `Model(settings)`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, get_args

from study.errors import UserError

if TYPE_CHECKING:
    from study.models.potential import Potential
    from study.trial import Network

# Nothing heavy is imported before it is needed, so that help appears at once.

SMALL = {"hidden": 8, "layers": 2}
"""Settings of the checked model, so that all checks take seconds."""


def find_model(path: Path) -> tuple[type[Potential], Network]:
    """The model that a file defines, and small settings for it.

    Raises:
        UserError: if the file cannot be run, or does not define exactly one of each.
    """
    from pydantic import ValidationError

    from study.models.potential import Potential
    from study.trial import Network

    module = _run(path)
    own = [value for value in vars(module).values() if _defined_in(value, module)]
    models = [value for value in own if issubclass(value, Potential)]
    settings = [value for value in own if issubclass(value, Network)]
    for found, base in (
        (models, "ConservativePotential or DirectPotential"),
        (settings, "Network"),
    ):
        if len(found) != 1:
            names = ", ".join(value.__name__ for value in found) or "none"
            raise UserError(f"{path}: must define one class derived from {base}, but has {names}")
    (model,), (kind,) = models, settings
    name = kind.model_fields.get("name")
    if name is None or not get_args(name.annotation):
        raise UserError(f'{path}: {kind.__name__} must have a name, `name: Literal["my_model"]`')
    try:
        return model, kind.model_validate(SMALL | {"name": get_args(name.annotation)[0]})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: {kind.__name__}.{place}: {first['msg']}; give a default"
        ) from None


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"{path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    # Annotations are looked up in it.
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    # Whatever the user's file raises is the answer.
    except Exception as problem:
        raise UserError(f"{path}: {type(problem).__name__}: {problem}") from None
    return module


def _defined_in(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def main(arguments: list[str] | None = None) -> int:
    """Check; 0 if all is well, 1 if something is not, 2 if there is no model."""
    parser = argparse.ArgumentParser(
        prog="python -m study.check",
        description=__doc__,
        epilog="Exit codes: 0 all is well, 1 a check failed, 2 no model found.",
    )
    parser.add_argument("file", type=Path, help="a Python file with a model")
    chosen = parser.parse_args(arguments)
    try:
        kind, settings = find_model(chosen.file)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    from study.contract import examine

    failed = 0
    for name, problem in examine(kind, settings):
        failed += bool(problem)
        sys.stdout.write(f"{'failed' if problem else 'ok':<7} {name}\n")
        sys.stdout.write(f"        {problem}\n" if problem else "")
    sys.stdout.write(f"{kind.__name__}: {failed} failed\n" if failed else f"{kind.__name__}: ok\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
