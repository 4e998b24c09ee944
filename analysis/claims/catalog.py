"""Which space answers which claim, and what that costs."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from analysis.claims.claim import Statement
from study.planning.cost_model import Forecast, forecast

WIDTH = 80

Key = tuple[str, str]
"""Space and profile."""


def catalog(statements: Sequence[Statement], *, texts: bool = False) -> str:
    """List claims by the space that answers them, with its cost; then those that none answers.

    Args:
        statements: the claims.
        texts: also say what each claims.

    Raises:
        UserError: if a space that a claim names is wrong.
    """
    lines: list[str] = []
    for (space, profile), claims in _by_space(statements).items():
        papers = dict.fromkeys(f"arXiv:{claim.paper}" for claim in claims if claim.paper)
        lines += [f"{space} --profile {profile}   {', '.join(papers)}".rstrip()]
        lines += [*_costs(space, profile), *_needs(claims)]
        lines += [line for claim in claims for line in _claim(claim, texts=texts)]
        lines.append("")
    without = [claim for claim in statements if not claim.space]
    if without:
        lines.append("no space")
    for claim in without:
        lines += _claim(claim, texts=texts) + _wrapped(f"needs {claim.needs}", "      ")
    return "\n".join([*lines, "", *_wrapped(_summary(statements), "")])


def _by_space(statements: Iterable[Statement]) -> dict[Key, list[Statement]]:
    groups: dict[Key, list[Statement]] = {}
    for claim in statements:
        if claim.space:
            groups.setdefault((claim.space, claim.profile), []).append(claim)
    return groups


def _costs(space: str, profile: str) -> Iterator[str]:
    """What the profile takes, and the quick one beside the paper's."""
    for name in (profile, "quick") if profile == "paper" else (profile,):
        yield from _wrapped(f"{name:7} {in_words(forecast(space, name))}", "  ", " " * 10)


def in_words(cost: Forecast) -> str:
    """A forecast in one line."""
    hours = " to ".join(_rounded(each) for each in cost.hours)
    return (
        f"{cost.trials} trials, {cost.pretrainings} pretrainings, {_rounded(cost.steps)} steps, "
        f"{hours} core-hours" + f", without {' and '.join(cost.unknown)}" * bool(cost.unknown)
    )


def _needs(claims: Iterable[Statement]) -> list[str]:
    needs = dict.fromkeys(claim.needs for claim in claims if claim.needs)
    return [line for each in needs for line in _wrapped(f"needs   {each}", "  ", " " * 10)]


def _claim(claim: Statement, *, texts: bool) -> list[str]:
    """Name, origin and place of a claim, and what it says."""
    place = claim.place.removeprefix(f"arXiv:{claim.paper}, ")
    row = f"    {claim.id:36} {claim.origin:12} {place}"
    shown = row if len(row) <= WIDTH else f"{row[: WIDTH - 1]}…"
    said = [claim.text]
    said += [f"printed: {claim.printed}"] if claim.printed else []
    said += [f"derived: {claim.derived}"] if claim.derived else []
    said += [f"source: {claim.source}"] if claim.source else []
    return [shown, *(line for each in said * texts for line in _wrapped(each, "      "))]


def _summary(statements: Sequence[Statement]) -> str:
    origins = Counter(claim.origin for claim in statements)
    counts = ", ".join(f"{count} {origin}" for origin, count in origins.most_common())
    answered = [claim for claim in statements if claim.space]
    spaces = len({claim.space for claim in answered})
    return (
        f"{len(statements)} claims by origin: {counts}. {len(answered)} are answered by {spaces} "
        f"spaces, {len(statements) - len(answered)} by none. Costs are estimates for one core; run "
        "a study with: python -m study.run --space SPACE --profile PROFILE"
    )


def _wrapped(text: str, indent: str, following: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if following is None else following,
        break_on_hyphens=False,
    )


def _rounded(number: float) -> str:
    """To two digits."""
    return f"{number:.2g}" if number < 99.5 else f"{float(f'{number:.2g}'):,.0f}"
