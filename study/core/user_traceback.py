"""Where the user's own code failed, in a line: file, line and the last frames."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator

from study.core.errors import one_line
from study.core.hashing import OWN_CODE

OWN_MODULE = "own_"
"""Begin of the names of the modules of user files."""

FRAMES = 3
"""Frames of own code that are named, the innermost first."""

LONGEST_SOURCE = 70
"""Characters of a line of code that are shown."""


def described(problem: BaseException) -> str:
    """Describe any exception in one line, with where own code raised it or called what did."""
    return " ".join([one_line(problem), *_parenthesis(problem)])


def with_place(reason: str, problem: BaseException) -> str:
    """A reason with where in own code the exception passed, if it did."""
    return " ".join([reason, *_parenthesis(problem)])


def _parenthesis(problem: BaseException) -> Iterator[str]:
    frames = own_frames(problem)
    if frames:
        yield f"({'; called from '.join(reversed(frames[-FRAMES:]))})"


def own_frames(problem: BaseException) -> list[str]:
    """Each frame of own code that an exception has passed: place, function, source."""
    return [
        _named(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(problem.__traceback__)
        if _is_own(str(frame.f_globals.get("__name__")))
    ]


def _is_own(module: str) -> bool:
    return module.startswith(OWN_MODULE) or module.partition(".")[0] in OWN_CODE


def _named(file: str, line: int, function: str) -> str:
    source = linecache.getline(file, line).strip()
    shown = f"{source[:LONGEST_SOURCE]}…" if len(source) > LONGEST_SOURCE else source
    where = "" if function == "<module>" else f", in {function}"
    return f"{file}:{line}{where}" + (f": `{shown}`" if shown else "")


def remember_source(file: str, text: str) -> None:
    """Let tracebacks show a file as it was run, whatever has become of it."""
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)


def place_of(function: object) -> str:
    """File, line and name of a function of the user's, or of the `__call__` of an object."""
    function = getattr(function, "func", function)
    called = function if hasattr(function, "__code__") else vars(type(function)).get("__call__")
    code = getattr(called, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}, {code.co_name}" if code else repr(function)
