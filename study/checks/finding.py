"""What a check of this machine has found, and what it looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from study.core.errors import one_line

GIB = 2**30
"""Bytes."""

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Args:
        state: warnings slow a study down or limit it; failures end it.
        found: what is there.
        fix: what to do about it; empty if all is well.
    """

    state: State
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Place:
    """What is to be examined.

    Args:
        out: folder of all results.
        tracking_uri: of MLflow; a database in `out` when left out.
        address: of a Ray cluster; this machine when left out.
    """

    out: Path
    tracking_uri: str | None
    address: str | None

    @property
    def nearest(self) -> Path:
        """`out`, or the folder above it that exists."""
        return next(path for path in (self.out, *self.out.parents) if path.is_dir())


def ok(found: str) -> Finding:
    """All is well."""
    return Finding("ok", found)


def outcome(check: Callable[[Any], str], subject: Any) -> str:
    """What a check finds; an exception of the user's code is a finding too."""
    try:
        return check(subject)
    except Exception as problem:
        return one_line(problem)
