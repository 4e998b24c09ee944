"""Who goes on from whom: by hand, and what must hold for any errors."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from study.scheduling.proposals.population_rule import draw, explored, next_generation
from study.space.search.population import PopulationBased

HOLES: dict[str, tuple[str, list[Any]]] = {
    "finetune.lr": ("loguniform", [1e-4, 1e-2]),
    "finetune.clip_norm": ("choice", [None, 1.0, 10.0]),
}


def rates(*values: float) -> list[dict[str, Any]]:
    return [{"finetune.lr": value} for value in values]


def test_the_worst_two_of_eight_go_on_from_the_best_two_as_worked_out_by_hand() -> None:
    errors = [0.5, 0.1, 0.9, 0.4, math.inf, 0.2, 0.6, 0.3]
    settings = rates(1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 9e-3, 7e-3, 8e-3)
    holes, rule = {"finetune.lr": HOLES["finetune.lr"]}, PopulationBased(resample=0)
    seen = set()
    for seed in range(40):
        found = next_generation(errors, settings, holes, rule, seed, 1)
        for member in (0, 1, 3, 5, 6, 7):
            assert found[member] == (member, settings[member])
        for member in (2, 4):
            parent, own = found[member]
            seen.add((member, parent, round(own["finetune.lr"], 6)))
        assert found[2] != found[4]
    # Of the rate 9e-3, 1.2 times as much is more than the range has.
    ways = [(1, 1.6e-3), (1, 2.4e-3), (5, 7.2e-3), (5, 1e-2)]
    assert seen == {(member, *way) for member in (2, 4) for way in ways}


def test_it_holds_for_any_errors_that_only_bad_members_change_and_good_ones_are_taken_over() -> (
    None
):
    rng = np.random.default_rng(0)
    for seed in range(300):
        size, quantile = int(rng.integers(2, 12)), float(rng.uniform(0.05, 0.5))
        errors = rng.choice([0.1, 0.2, 0.3, 0.4, math.inf], size).tolist()
        settings = [draw(HOLES, random.Random(f"{seed} {member}")) for member in range(size)]
        rule = PopulationBased(quantile=quantile)
        found = next_generation(errors, settings, HOLES, rule, seed, 3)
        assert found == next_generation(errors, settings, HOLES, rule, seed, 3)
        ranks = {m: sorted(range(size), key=lambda m: (errors[m], m)).index(m) for m in range(size)}
        most = min(math.ceil(size * quantile), size // 2)
        if not np.isfinite(errors).any():
            assert [parent for parent, _ in found] == list(range(size))
            continue
        for member, (parent, own) in enumerate(found):
            if ranks[member] < size - most and math.isfinite(errors[member]):
                assert (parent, own) == (member, settings[member])
                continue
            assert ranks[parent] < most
            assert math.isfinite(errors[parent])
            assert 1e-4 <= own["finetune.lr"] <= 1e-2
            assert own["finetune.clip_norm"] in HOLES["finetune.clip_norm"][1]


def test_other_seeds_and_generations_decide_otherwise() -> None:
    errors, settings = [0.1, 0.2, 0.3, 0.4], rates(1e-3, 2e-3, 3e-3, 4e-3)
    holes, rule = {"finetune.lr": HOLES["finetune.lr"]}, PopulationBased(resample=1)
    drawn = {
        next_generation(errors, settings, holes, rule, seed, generation)[3][1]["finetune.lr"]
        for seed in range(5)
        for generation in range(1, 5)
    }
    assert len(drawn) == 20


def test_settings_are_drawn_anew_as_often_as_asked_and_evenly_in_the_logarithm() -> None:
    rng, parent = random.Random(0), {"finetune.lr": 1e-3, "finetune.clip_norm": 1.0}
    rule = PopulationBased(resample=0.25)
    found = [explored(parent, HOLES, rule, rng) for _ in range(4000)]
    near = [any(math.isclose(each["finetune.lr"], 1e-3 * f) for f in (0.8, 1.2)) for each in found]
    assert abs(np.mean(near) - 0.75) < 0.03
    anew = [
        math.log10(e["finetune.lr"]) for e, is_near in zip(found, near, strict=True) if not is_near
    ]
    assert np.allclose(np.quantile(anew, [0.25, 0.5, 0.75]), [-3.5, -3, -2.5], atol=0.1)
    # A choice moves to a neighbour, or to any option at all when it is drawn anew.
    stayed = np.mean([each["finetune.clip_norm"] == 1.0 for each in found])
    assert abs(stayed - 0.25 / 3) < 0.02
