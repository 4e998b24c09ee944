"""What every data set must keep, whoever wrote it; studies rely on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from study.checks.finding import outcome
from study.datasets.frames import Frames
from study.datasets.split_config import Split
from study.datasets.splits import split
from study.datasets.validation import check as check_frames

Build = Callable[[], Frames]


def _sane(build: Build) -> str:
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
    "models can learn from the frames": _sane,
    "equal settings give equal frames": _repeatable,
    "its groups can be split": _groups,
}


def examine(build: Build) -> Iterator[tuple[str, str]]:
    """Name of every check of a data set, and what is wrong; empty if nothing is."""
    for name, check in CHECKS.items():
        yield name, outcome(check, build)
