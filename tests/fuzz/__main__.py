"""`python -m tests.fuzz`: see the package."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter
from functools import partial

from tests.fuzz.cases import (
    FAULTS,
    Case,
    command_line,
    damaged_file,
    import_commands,
    run_case,
)
from tests.fuzz.command_lines import command_lines
from tests.fuzz.files import ALL


def main() -> int:
    """Run all cases, print a table, and return 1 if there was a fault."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--seeds", type=int, default=21, help="damages of each file")
    options.add_argument("--first", type=int, default=0, help="first seed")
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    seeds = range(chosen.first, chosen.first + chosen.seeds)
    jobs = [partial(damaged_file, name, seed) for name in ALL for seed in seeds]
    jobs += [partial(command_line, line) for line in command_lines()]
    with multiprocessing.get_context("spawn").Pool(chosen.workers, import_commands) as pool:
        cases = pool.map(run_case, jobs, chunksize=8)
    print_table(cases)
    return int(any(case.fault for case in cases))


def print_table(cases: list[Case]) -> None:
    """Print counts of each format, and each fault."""
    out = sys.stdout.write
    out(f"{'':<18}{'cases':>6}{'accepted':>9}{'refused':>8}")
    out("".join(f"{name:>10}" for name in FAULTS) + f"{'MB':>7}{'s':>6}\n")
    groups = list(dict.fromkeys(case.group for case in cases))
    for group in [*groups, "all"]:
        here = [case for case in cases if group in (case.group, "all")]
        answers, faults = Counter(c.answer for c in here), Counter(c.fault for c in here)
        out(f"{group:<18}{len(here):>6}{answers['accepted']:>9}{answers['refused']:>8}")
        out("".join(f"{faults[name]:>10}" for name in FAULTS))
        memory, seconds = (max(getattr(c.ended, n) for c in here) for n in ("memory", "seconds"))
        out(f"{memory:>7.0f}{seconds:>6.1f}\n")
    for case in cases:
        if case.fault:
            lines = case.ended.shown.strip().splitlines()
            last = lines[-1][:160] if lines else ""
            out(f"{case.fault}: {case.group}, {case.what}: {case.detail or last}\n")


if __name__ == "__main__":
    sys.exit(main())
