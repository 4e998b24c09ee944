"""Python files and modules of the user's own: run once, known by their content."""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from study.core.config import PACKAGE, Component, Own
from study.core.errors import UserError, one_line
from study.core.hashing import OWN_CODE, digest
from study.core.paths import read_small_file

Kind = type[Component]


def classes(module: ModuleType) -> list[Kind]:
    """The settings classes that a module defines."""
    found: list[Kind] = []
    for each in vars(module).values():
        mine = isinstance(each, type) and each.__module__ == module.__name__
        if mine and issubclass(each, Component):
            found.append(each)
    return found


def name_of(kind: Kind, code: str, taken: Collection[str] = ()) -> str:
    """The name by which a space calls a class.

    Raises:
        UserError: if it has none.
    """
    name = kind.space_name()
    if not name:
        raise UserError(
            f'{code}: {kind.__name__} must have a name of its own, `name: Literal["my_name"]`'
        )
    if name in taken:
        raise UserError(f"{code}: {kind.__name__} must not be named {name!r} as a shipped one")
    return name


def load(code: str, planned: str = "") -> tuple[ModuleType, str]:
    """Run a file, or import an installed module; once for the same content.

    Args:
        code: the file or the module.
        planned: SHA-256 that it must have; nothing else is run, since others may write there.

    Returns:
        The module, and the SHA-256 of its file or of its whole package.

    Raises:
        UserError: if it cannot be run, or is not what was planned.
    """
    if not is_file(code):
        module, sha256 = _imported(code)
        _require_planned(code, sha256, planned)
        return module, sha256
    what = "a Python file, relative to the current folder, or an installed module"
    content = read_small_file(Path(code), what)
    sha256 = hashlib.sha256(content).hexdigest()
    _require_planned(code, sha256, planned)
    return _run(code, content), sha256


def _require_planned(code: str, sha256: str, planned: str) -> None:
    if planned not in ("", sha256):
        raise UserError(
            f"{code}: is not the code that this was planned with (SHA-256 {planned[:12]}…); bring "
            "that version back"
        )


def is_file(code: str) -> bool:
    """Whether it is the name of a file, not that of a module."""
    return code.endswith(".py") or "/" in code


def _imported(code: str) -> tuple[ModuleType, str]:
    try:
        module = importlib.import_module(code)
    # Whatever the user's code raises is the answer, an exit included.
    except (Exception, SystemExit) as problem:
        raise UserError(
            f"{code}: {one_line(problem)}; name a Python file, *.py, or an installed module"
        ) from None
    package = code.partition(".")[0]
    OWN_CODE[package] = _version_of(package)
    return module, OWN_CODE[package]


@cache
def _version_of(package: str) -> str:
    """SHA-256 of all sources of an installed package."""
    origin = sys.modules[package].__file__
    if origin is None:
        raise UserError(f"{package}: must be a package with an __init__.py, but has none")
    main = Path(origin)
    sources = main.parent.rglob("*.py") if main.name == "__init__.py" else [main]
    return digest({path.relative_to(main.parent).as_posix(): path.read_text() for path in sources})


def _run(code: str, content: bytes) -> ModuleType:
    """The module of a file, under a name that only this content has."""
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"own_{sha256[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = code
    try:
        parsed = ast.parse(content, code)
        _require_whole(parsed, code)
        # Annotations are looked up in it.
        sys.modules[name] = module
        exec(compile(parsed, code, "exec"), vars(module))
    except UserError:
        raise
    # Whatever the user's file raises is the answer, an exit included.
    except (Exception, SystemExit) as problem:
        sys.modules.pop(name, None)
        raise UserError(f"{code}: {one_line(problem)}") from None
    OWN_CODE[name] = sha256
    return module


def _require_whole(parsed: ast.Module, code: str) -> None:
    """Refuse imports of files beside it, which nobody would hash, keep or send to workers."""
    places = {Path(code).resolve().parent, Path.cwd()}
    for node in ast.walk(parsed):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom():
                names = ["." * node.level + (node.module or "")]
            case _:
                continue
        for name in names:
            top = name.partition(".")[0]
            entries = (f"{top}.py", f"{top}/__init__.py") if top != PACKAGE else ()
            if not top or any((place / entry).is_file() for place in places for entry in entries):
                raise UserError(
                    f"{code}:{node.lineno}: must be one whole file, but imports {name}, which is "
                    "no installed package; move it into the file, or install it"
                )


def find(code: str, name: str, base: Kind, planned: str = "", taken: Collection[str] = ()) -> Kind:
    """The settings class of a name; `code` and `planned` as in `load`.

    Raises:
        UserError: if the code has none of that name and kind, or is not what was planned.
    """
    kinds = [kind for kind in classes(load(code, planned)[0]) if issubclass(kind, base)]
    named = {name_of(kind, code, taken): kind for kind in kinds}
    if name not in named:
        what = f"a class derived from `study.plugins.{base.__name__}`"
        raise UserError(
            f"{code}: must define {what} with `name: Literal[{name!r}]`, "
            f"but has {', '.join(named) or 'none'}"
        )
    return named[name]


def kept_file(sha256: str, root: Path) -> Path:
    """Where a file of this content is kept beside the results."""
    return root / "code" / f"{sha256}.py"


def typed(settings: Own, base: Kind, root: Path) -> Any:
    """The settings as an instance of their own class.

    Raises:
        UserError: if the code is not there as it was.
    """
    assert settings.sha256 is not None
    kept = kept_file(settings.sha256, root)
    code = str(kept) if kept.exists() else settings.code
    kind = find(code, settings.name, base, settings.sha256)
    return kind.model_validate(settings.model_dump(exclude={"code", "sha256"}))
