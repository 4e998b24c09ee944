"""Results of checks, and the environment that they examine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from study.core.user_traceback import described

GIB = 2**30
"""Bytes in one GiB."""

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """Result of a check of this machine.

    Args:
        state: ok; warning, if studies are slower or limited; or failed, if they cannot run.
        found: what was observed.
        fix: how to fix it; empty if there is nothing to fix.
    """

    state: State
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Environment:
    """Folder and servers that a study will use.

    Args:
        out: folder of all results.
        tracking_uri: MLflow tracking URI; None for a database in `out`.
        address: address of a Ray cluster; None for this machine.
    """

    out: Path
    tracking_uri: str | None
    address: str | None

    @property
    def existing_folder(self) -> Path:
        """`out`, or its nearest parent that exists."""
        return next(path for path in (self.out, *self.out.parents) if path.is_dir())


def ok(found: str) -> Finding:
    """Make the result of a check that passed."""
    return Finding("ok", found)


def run_check(check: Callable[[Any], str], subject: Any) -> str:
    """Run a check of plugin code and return the problem; an exception is a problem, too."""
    try:
        return check(subject)
    except Exception as problem:
        return described(problem)
