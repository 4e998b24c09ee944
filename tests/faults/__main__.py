"""Every fault at every step of a small study: `python -m tests.faults`."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.faults.cases import disk_fault, server_fault, undisturbed
from tests.faults.disk import KINDS, Killed


def main() -> int:
    """Try them all, show what is wrong, and exit 1 if anything is."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    kinds = [*KINDS, "server"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--every", type=int, default=1, help="take every n-th step only")
    chosen = parser.parse_args()
    started, wrong, number = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, case in _cases(Path(folder), chosen.kinds, chosen.every):
            number += 1
            try:
                problems = case()
            except Exception as problem:
                problems = [f"{type(problem).__name__}: {problem}"]
            wrong += bool(problems)
            sys.stdout.write("".join(f"{name}: {problem}\n" for problem in problems))
    seconds = time.monotonic() - started
    sys.stdout.write(f"{number} faults in {seconds:.0f} s, {wrong} with consequences\n")
    return int(wrong > 0)


def _cases(
    folder: Path, kinds: list[str], every: int
) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    usual = undisturbed(folder)
    for kind in KINDS:
        for at in range(0, usual.steps * (kind in kinds), every):
            yield f"{kind} at step {at}", partial(disk_fault, usual, at, kind)
    for at in range(0, usual.calls * ("server" in kinds), every):
        for error, done in itertools.product((ConnectionError, Killed), (False, True)):
            when = "after" if done else "before"
            case = partial(server_fault, usual, at, error, done=done)
            yield f"{error.__name__} {when} call {at} of MLflow", case


if __name__ == "__main__":
    sys.exit(main())
