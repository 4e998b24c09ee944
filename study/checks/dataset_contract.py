"""Invariants that every data set must satisfy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from study.checks.finding import run_check
from study.datasets.frames import Frames
from study.datasets.split_config import Split
from study.datasets.splits import split
from study.datasets.validation import check as check_frames

Build = Callable[[], Frames]


def _valid(build: Build) -> str:
    check_frames(build(), Path("the data set"))
    return ""


def _repeatable(build: Build) -> str:
    if build().content_hash() != build().content_hash():
        return "building it twice must give equal frames, but does not; take a fixed seed"
    return ""


def _groups(build: Build) -> str:
    split(build(), Split(), seed=0)
    return ""


CHECKS: dict[str, Callable[[Build], str]] = {
    "models can learn from the frames": _valid,
    "equal settings give equal frames": _repeatable,
    "its groups can be split": _groups,
}


def examine(build: Build) -> Iterator[tuple[str, str]]:
    """Run all checks of a data set; yield the name and the problem of each, empty if it passed."""
    for name, check in CHECKS.items():
        yield name, run_check(check, build)
