"""Python files and modules of the user's own: run once, known by their content.

What the user names is run. What results or a model name, which may be somebody else's, is run only
if this user has accepted its content before; see `study.core.trust`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from study.core.config import PACKAGE, Component, Own
from study.core.errors import UserError
from study.core.hashing import OWN_CODE, OWN_FILES, digest, file_hash
from study.core.paths import read_small_file
from study.core.trust import SHA256, accept, is_accepted, refusal
from study.core.user_traceback import OWN_MODULE, described, remember_source

Kind = type[Component]

NO_READERS = ("importlib.", "_frozen_importlib", "inspect", "linecache", "tokenize", "torch._")
"""Modules that open files on their own account, though own code called them."""

logger = logging.getLogger(__name__)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note each file that the user's own code opens to read, as Python's audit hooks tell."""
    if event != "open" or not isinstance(arguments[0], str | os.PathLike):
        return
    mode, flags = arguments[1], arguments[2]
    reads = not set(mode or "r") & set("wax+") and not flags & (os.O_WRONLY | os.O_RDWR)
    if reads and _called_by_own_code():
        _note(Path(os.fspath(arguments[0])))


def _called_by_own_code() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        # Those look for sources, compile, and hash.
        if name.startswith(NO_READERS) or name == __name__:
            return False
        if name.startswith(OWN_MODULE):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _note(path: Path) -> None:
    known = str(path)
    installed = path.absolute().is_relative_to(sys.prefix) or "/lib/python" in known
    if known in OWN_FILES or installed or not path.is_file() or known.startswith("/proc/"):
        return
    OWN_FILES[known] = ""
    with suppress(UserError):
        OWN_FILES[known] = file_hash(path)
    logger.warning(
        "%s: is read by your own code, but is part of no job's name: if it changes, finished work "
        "stays as it is; put its content into the code, or its SHA-256 into a field",
        path,
    )


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


def load(code: str, planned: str | None = None, called: str = "") -> tuple[ModuleType, str]:
    """Run a file, or import an installed module; once for the same content.

    Args:
        code: the file or the module.
        planned: SHA-256 that it must have, where results name the code and not the user; it is run
            only if the user has accepted it. Otherwise it is accepted by this.
        called: what the user calls a file, of which `code` is a copy.

    Returns:
        The module, and the SHA-256 of its file or of its whole package.

    Raises:
        UserError: if it cannot be run, is not what was planned, or is not accepted.
    """
    if not is_file(code):
        package = code.partition(".")[0]
        sha256 = _version_of(package, code)
        _require_planned(code, sha256, planned)
        OWN_CODE[package] = sha256
        return _imported(code), sha256
    what = "a Python file, relative to the space's folder, or an installed module"
    content = read_small_file(Path(code), what)
    sha256 = hashlib.sha256(content).hexdigest()
    _require_planned(code, sha256, planned)
    return _run(code, content, called or code), sha256


def _require_planned(code: str, sha256: str, planned: str | None) -> None:
    if planned is None:
        accept(sha256, str(Path(code).resolve()) if is_file(code) else code)
    elif planned == sha256 and not is_accepted(sha256):
        raise refusal(code, sha256)
    elif planned != sha256:
        raise UserError(
            f"{code}: is not the code that this was planned with (SHA-256 {planned[:12]}…); bring "
            "that version back"
        )


def is_file(code: str) -> bool:
    """Whether it is the name of a file, not that of a module."""
    return code.endswith(".py") or "/" in code


def _imported(code: str) -> ModuleType:
    try:
        return importlib.import_module(code)
    # Whatever the user's code raises is the answer, an exit included.
    except (Exception, SystemExit) as problem:
        raise UserError(
            f"{code}: {described(problem)}; name a Python file, *.py, or an installed module"
        ) from None


@cache
def _version_of(package: str, code: str) -> str:
    """SHA-256 of all sources of an installed package, which is not imported for that.

    Raises:
        UserError: if there is none.
    """
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:
        spec = None
    if spec is None:
        _imported(code)
        raise UserError(f"{package}: must be a package with an __init__.py, but has none")
    origin = spec.origin
    if origin is None or not Path(origin).is_file():
        raise UserError(f"{package}: must be a package with an __init__.py, but has none")
    main = Path(origin)
    sources = main.parent.rglob("*.py") if main.name == "__init__.py" else [main]
    return digest({path.relative_to(main.parent).as_posix(): path.read_text() for path in sources})


@cache
def _start_watching() -> None:
    sys.addaudithook(_watch)


def _run(code: str, content: bytes, called: str) -> ModuleType:
    """The module of a file, under a name that only this content has."""
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"{OWN_MODULE}{sha256[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    _start_watching()
    module = ModuleType(name)
    module.__file__ = code
    try:
        parsed = ast.parse(content, code)
        _require_whole(parsed, code)
        # Annotations are looked up in it.
        sys.modules[name] = module
        remember_source(called, content.decode())
        exec(compile(parsed, called, "exec"), vars(module))
    except UserError:
        raise
    # Whatever the user's file raises is the answer, an exit included.
    except (Exception, SystemExit) as problem:
        sys.modules.pop(name, None)
        raise UserError(f"{code}: {described(problem)}") from None
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


def find(
    code: str,
    name: str,
    base: Kind,
    planned: str | None = None,
    taken: Collection[str] = (),
    called: str = "",
) -> Kind:
    """The settings class of a name; `code`, `planned` and `called` as in `load`.

    Raises:
        UserError: if the code has none of that name and kind, or is not what was planned.
    """
    kinds = [kind for kind in classes(load(code, planned, called)[0]) if issubclass(kind, base)]
    named = {name_of(kind, code, taken): kind for kind in kinds}
    if name not in named:
        what = f"a class derived from `study.plugins.{base.__name__}`"
        raise UserError(
            f"{code}: must define {what} with `name: Literal[{name!r}]`, "
            f"but has {', '.join(named) or 'none'}"
        )
    return named[name]


def kept_file(sha256: str, root: Path) -> Path:
    """Where a file of this content is kept beside the results.

    Raises:
        UserError: if it is no SHA-256, as in results that nobody here wrote.
    """
    if not SHA256.fullmatch(sha256):
        raise UserError(f"{root}: names code by {sha256!r}, which is no SHA-256; it is not used")
    return root / "code" / f"{sha256}.py"


def typed(settings: Own, base: Kind, root: Path) -> Any:
    """The settings as an instance of their own class.

    Raises:
        UserError: if the code is not there as it was.
    """
    sha256 = settings.sha256 or ""
    kept = kept_file(sha256, root)
    code = str(kept) if kept.exists() else settings.code
    kind = find(code, settings.name, base, sha256, called=settings.code)
    return kind.model_validate(settings.model_dump(exclude={"code", "sha256"}))
