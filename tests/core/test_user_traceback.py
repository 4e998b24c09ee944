from __future__ import annotations

from pathlib import Path

import pytest
import torch

from study.core.config import Component
from study.core.errors import UserError
from study.core.user_code import load
from study.core.user_traceback import described, own_frames

CODE = """
import torch

def outer(x):
    return inner(x, torch.ones(3))

def inner(x, y):
    return torch.nn.functional.linear(x, y)  # a line that is longer than what is shown of one
"""


def failed(code: str, *arguments: object, called: str = "") -> Exception:
    module, _ = load(code, called=called)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of any kind
        module.outer(*arguments)
    return raised.value


def test_the_frames_of_own_code_are_named_the_innermost_first(tmp_path: Path) -> None:
    place = tmp_path / "mine.py"
    place.write_text(CODE)
    problem = failed(str(place), torch.ones(2))
    place.write_text("")  # Changed since: shown is what was run.
    inner, outer = own_frames(problem)[::-1]
    assert inner.startswith(f"{place}:8, in inner: `return torch.nn.functional.linear(x, y)")
    assert inner.endswith("…`")
    assert outer == f"{place}:5, in outer: `return inner(x, torch.ones(3))`"
    line = described(problem)
    assert line.startswith("RuntimeError: ")
    assert line.endswith(f"({inner}; called from {outer})")
    assert "\n" not in line


def test_a_kept_copy_is_called_as_the_user_calls_it(tmp_path: Path) -> None:
    kept = tmp_path / "0a1b.py"
    kept.write_text("def outer():\n    return nothing\n")
    problem = failed(str(kept), called="mine.py")
    assert described(problem) == (
        "NameError: name 'nothing' is not defined (mine.py:2, in outer: `return nothing`)"
    )


def test_code_that_fails_as_it_is_read_is_answered_with_its_line(tmp_path: Path) -> None:
    place = tmp_path / "mine.py"
    place.write_text("import math\nmath.sqrt(-1)\n")
    with pytest.raises(UserError, match=rf"math domain error \({place}:2: `math.sqrt\(-1\)`\)"):
        load(str(place))


def test_an_error_elsewhere_has_no_place() -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        Component.model_validate({"name": 3})
    assert own_frames(raised.value) == []
