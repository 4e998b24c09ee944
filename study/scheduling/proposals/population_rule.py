"""Who goes on from whom after a generation, and with which settings (arXiv:1711.09846)."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from study.core.hashing import digest
from study.space.ranges import at_quantile, nearest
from study.space.search.population import PopulationBased

Settings = dict[str, Any]
"""What members differ in, by the names of the holes."""

Holes = Mapping[str, tuple[str, list[Any]]]
"""Kind and content of each hole, by its name."""

FACTORS = (0.8, 1.2)
"""By one of which a setting is multiplied."""

MOST_DRAWS = 20
"""Draws until a member's settings differ from those of all others that go on from its parent."""


def draw(holes: Holes, rng: random.Random) -> Settings:
    """Settings from anywhere in their distributions."""
    return {name: _drawn(*hole, rng) for name, hole in holes.items()}


def next_generation(
    errors: Sequence[float],
    settings: Sequence[Settings],
    holes: Holes,
    rule: PopulationBased,
    seed: int,
    generation: int,
) -> list[tuple[int, Settings]]:
    """Parent and settings of each member: itself and its own, unless it is replaced.

    The worst are replaced, and all that diverged, each by one of the best at random (truncation
    selection); the same number of the best as of the worst takes part.

    Args:
        errors: of each member at the end of the generation; infinite if it diverged.
        settings: of each member.
        holes: what may be drawn.
        rule: how many are replaced, and how settings change.
        seed: of the search.
        generation: that follows, from 1.
    """
    order = sorted(range(len(errors)), key=lambda member: (errors[member], member))
    number = min(max(1, math.ceil(len(order) * rule.quantile)), len(order) // 2)
    best = [member for member in order[:number] if math.isfinite(errors[member])]
    replaced = {*order[-number:], *(m for m in order if not math.isfinite(errors[m]))}
    following = {m: (m, settings[m]) for m in order if m not in replaced or not best}
    for member in sorted(replaced) if best else ():
        rng = random.Random(digest([seed, generation, member]))
        for _ in range(MOST_DRAWS):
            parent = rng.choice(best)
            found = parent, explored(settings[parent], holes, rule, rng)
            if found not in following.values():
                break
        following[member] = found
    return [following[member] for member in range(len(errors))]


def explored(
    settings: Settings, holes: Holes, rule: PopulationBased, rng: random.Random
) -> Settings:
    """Settings near to those of the parent, or some of them drawn anew."""
    found = {}
    for name, (kind, content) in holes.items():
        value, anew = settings[name], rng.random() < rule.resample
        if anew:
            found[name] = _drawn(kind, content, rng)
        elif kind == "choice":
            place = content.index(value) + rng.choice((-1, 1))
            found[name] = content[min(max(place, 0), len(content) - 1)]
        else:
            found[name] = nearest(kind, content, value * rng.choice(FACTORS))
    return found


def _drawn(kind: str, content: list[Any], rng: random.Random) -> Any:
    if kind == "choice":
        return rng.choice(content)
    return at_quantile(kind, content, rng.random())
