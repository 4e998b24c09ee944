"""Compare the installed packages with the advisories that pip-audit knows.

`python -m tests.audit` needs `pip install pip-audit` and the network. Exit codes: 0 no advisory
applies, 1 some do, 69 not checked.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

OPTIONS = ("--format", "json", "--progress-spinner", "off", "--skip-editable", "--timeout", "15")


def main(arguments: list[str] | None = None) -> int:
    """Audit this environment and print what is known of it."""
    argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__).parse_args(arguments)
    if importlib.util.find_spec("pip_audit") is None:
        return _not_checked("pip-audit is not installed; `pip install pip-audit`")
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *OPTIONS],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return _not_checked(f"no network, or no advisory database ({reason[:200]})")
    return report(packages)


def report(packages: Sequence[dict[str, Any]]) -> int:
    """Print a line for each advisory and for each package that was left out.

    Args:
        packages: as pip-audit lists them.
    """
    found = [(package, hole) for package in packages for hole in package.get("vulns", [])]
    for package, hole in found:
        fixed = ", ".join(hole["fix_versions"]) or "no version yet"
        sys.stdout.write(
            f"{package['name']} {package['version']}: {hole['id']}, fixed in {fixed}\n"
        )
    for package in packages:
        if "skip_reason" in package:
            sys.stdout.write(f"not checked: {package['name']}: {package['skip_reason']}\n")
    checked = sum("vulns" in package for package in packages)
    if not checked:
        return _not_checked("the database knows none of these packages")
    sys.stdout.write(f"{checked} packages, {len(found)} advisories\n")
    return int(bool(found))


def _not_checked(reason: str) -> int:
    sys.stdout.write(f"not checked: {reason}\n")
    return os.EX_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
