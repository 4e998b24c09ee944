"""List the claims of the papers, the space that answers each, and what that costs."""

from __future__ import annotations

import argparse
import sys

from analysis.claims.catalog import catalog
from analysis.claims.findings import statements
from study.core.errors import UserError, exit_code

EPILOG = """\
Every claim has an origin: table, figure or text of the paper; derived from those; or another
source. Estimates count one core and the sizes that data sets are known to have; nothing is
downloaded or written. `--texts` says what each claims, and what is printed or derived.
"""


def main(arguments: list[str] | None = None) -> int:
    """List the claims.

    Returns:
        0; 2 for a space or paper that is not there.
    """
    parser = argparse.ArgumentParser(
        "python -m analysis.claims",
        description="Which space answers which claim of the papers, and at what cost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--space", help="only claims that this space answers; `none` for no space")
    parser.add_argument("--paper", help="only claims of this arXiv number, such as 2206.00133")
    parser.add_argument("--texts", action="store_true", help="also say what each claims")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _list(options.space, options.paper, texts=options.texts))


def _list(space: str | None, paper: str | None, *, texts: bool) -> None:
    wanted = "" if space == "none" else space
    every = statements()
    _require("--paper", paper, {claim.paper for claim in every})
    _require("--space", space, {claim.space or "none" for claim in every})
    chosen = [c for c in every if wanted in (None, c.space) and paper in (None, c.paper)]
    sys.stdout.write(f"{catalog(chosen, texts=texts)}\n")


def _require(option: str, given: str | None, known: set[str]) -> None:
    """Refuse a paper or space that no claim names."""
    if given is not None and given not in known:
        names = ", ".join(sorted(filter(None, known)))
        raise UserError(f"{option} {given}: must be one of {names}")


if __name__ == "__main__":
    sys.exit(main())
