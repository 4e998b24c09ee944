"""Names for pieces of work: the hash of all that their result depends on."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from study.core.errors import UserError

HASHED_FOLDERS = (
    "core",
    "datasets",
    "graphs",
    "models",
    "tasks",
    "training",
    "space",
    "pipeline",
)
"""The folders of this package that decide the numbers a trial produces: `pipeline`, which trains,
and all layers below it. Nothing else can be imported there, as the layers' import contract says."""

OWN_CODE: dict[str, str] = {}
"""SHA-256 of the user's own code that runs in this process, by its module or package."""

OWN_FILES: dict[str, str] = {}
"""SHA-256 of each file that the user's own code has read in this process, by its path."""

STRING = (
    r"'{3}(?:\\[\s\S]|[^\\])*?'{3}|"
    r'"{3}(?:\\[\s\S]|[^\\])*?"{3}|'
    r"'(?:\\[\s\S]|[^'\\\n])*'|"
    r'"(?:\\[\s\S]|[^"\\\n])*"'
)
COMMENT = re.compile(rf"({STRING})|[ \t]*#[^\n]*")
BLANKS = re.compile(rf"({STRING})|[ \t]*\n(?:[ \t]*\n)*")
"""What looks like a comment or an empty line in a string is none, so strings are matched, too."""


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of a file; computed once as long as size and time of change stay.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        known = file.stat()
        return _file_hash(file, known.st_size, known.st_mtime_ns)
    except OSError as problem:
        raise UserError(f"{file}: cannot be read ({problem.strerror})") from None


@lru_cache
def _file_hash(file: Path, _size: int, _changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@cache
def code_version() -> str:
    """SHA-256 over the code that decides the numbers, and the versions of what it builds on."""
    versions = {name: version(name) for name in ("torch", "torch-geometric")}
    return digest({"sources": hash_sources(Path(__file__).parents[1])} | versions)


def hash_sources(package: Path) -> str:
    """SHA-256 over path and code of every module in `HASHED_FOLDERS`, and of the package's own.

    Comments and docstrings do not count, so that better words invalidate no result.

    Args:
        package: folder of this package, or of a copy.
    """
    found = [package / "__init__.py"]
    for folder in HASHED_FOLDERS:
        found += (package / folder).rglob("*.py")
    return digest({path.relative_to(package).as_posix(): _code_in(path) for path in found})


def _code_in(path: Path) -> str:
    return code_alone(path.read_text(encoding="utf-8"))


@cache
def code_alone(source: str) -> str:
    """Python source without comments, docstrings, blank lines and blanks at the end of lines.

    The text that is left is hashed, not the syntax tree, which differs between versions of Python.
    """
    lines = source.encode().splitlines(keepends=True)
    for node in _docstrings(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        first, last = node.lineno - 1, node.end_lineno - 1
        rest = lines[last][node.end_col_offset :]
        lines[first] = lines[first][: node.col_offset] + (rest if first == last else b"\n")
        if first != last:
            lines[first + 1 : last] = [b""] * (last - first - 1)
            lines[last] = rest
    text = COMMENT.sub(lambda found: found[1] or "", b"".join(lines).decode())
    return BLANKS.sub(lambda found: found[1] or "\n", text).strip()


def _docstrings(tree: ast.AST) -> Iterator[ast.expr]:
    """Strings that stand alone, those below a variable among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from [node.value] * isinstance(node.value.value, str)


def own_version(thing: object) -> str:
    """SHA-256 of the user's code that a class or function is from; empty if it is not."""
    module = getattr(getattr(thing, "func", thing), "__module__", "")
    return OWN_CODE.get(str(module).partition(".")[0], "")


def without_places(settings: Any) -> Any:
    """JSON settings whose own code and weights are known by their content, wherever they lie."""
    if isinstance(settings, list):
        return [without_places(each) for each in settings]
    if not isinstance(settings, dict):
        return settings
    known = "sha256" in settings
    return {
        name: without_places(value)
        for name, value in settings.items()
        if not (known and name in ("code", "from"))
    }
