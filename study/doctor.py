# PYTHON_ARGCOMPLETE_OK
"""Is this machine ready for studies? `python -m study.doctor` says what is not, and the fix.

Changes nothing that stays: what it writes into --out, it removes again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from study.checks import machine, storage
from study.checks.finding import Environment, Finding
from study.console.command_line import parse
from study.core import provenance
from study.core.errors import exit_code, printable
from study.core.paths import real_path, root_of

CHECKS = machine.CHECKS | storage.CHECKS


def examine(environment: Environment) -> Iterator[tuple[str, Finding]]:
    """Every check with what it found, in order; the slow ones run beside each other."""
    with ThreadPoolExecutor(max_workers=max(2, provenance.cores())) as pool:
        waiting = {name: pool.submit(check, environment) for name, check in CHECKS.items()}
        for name, pending in waiting.items():
            try:
                yield name, pending.result()
            except OSError as problem:
                yield name, Finding("failed", str(problem), "fix this and run the check again")


def main(arguments: list[str] | None = None) -> int:
    """Examine; 0 if a study can run here, 1 if not."""
    chosen = parse(parser(), arguments)
    return exit_code(lambda: _report(chosen))


def _report(chosen: argparse.Namespace) -> int:
    environment = Environment(real_path(chosen.out), chosen.tracking_uri, chosen.address)
    started, states = time.monotonic(), []
    for name, finding in examine(environment):
        states.append(finding.state)
        if chosen.json:
            sys.stdout.write(f"{json.dumps({'check': name, **asdict(finding)})}\n")
        else:
            sys.stdout.write(printable(f"{finding.state:<8} {name:<24} {finding.found}\n"))
            sys.stdout.write(f"{'':<9}fix: {finding.fix}\n" if finding.fix else "")
        sys.stdout.flush()
    if not chosen.json:
        failed, warned = states.count("failed"), states.count("warning")
        sys.stdout.write(
            f"{len(states)} checks in {time.monotonic() - started:.1f} s: "
            f"{failed} failed, {warned} warnings\n"
        )
    return 1 if "failed" in states else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m study.doctor",
        description=__doc__,
        epilog="Exit codes: 0 ready, perhaps with warnings; 1 a check failed.",
    )
    add = made.add_argument
    add("--out", type=root_of, default=Path("runs"), help="folder of all results (default: runs)")
    add("--tracking-uri", help="MLflow server (default: a database in --out)")
    add("--address", help="Ray cluster (default: this machine)")
    add("--json", action="store_true", help="print one JSON line per check")
    return made


if __name__ == "__main__":
    sys.exit(main())
