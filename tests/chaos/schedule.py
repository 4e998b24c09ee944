"""The schedule: studies, and what is done to each before it may finish."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.acts import Act


@dataclass(frozen=True)
class Scenario:
    """Studies in one results folder, and what is done to them, in turns if there are two.

    Args:
        profiles: of the studies, which run at the same time.
        acts: in order.
        data: whether its data are there already.
        cluster: whether they run on a Ray cluster of two nodes, of which one can be killed.
    """

    profiles: Sequence[str]
    acts: Sequence[Act]
    data: bool = True
    cluster: bool = False


SCENARIOS = {
    "data": Scenario(
        ["grid"],
        [Act("data", "driver", 4), Act("data", "group", 4), Act("data", "tree", 4)],
        data=False,
    ),
    "row": Scenario(
        ["grid"],
        [
            *(Act("start", "driver", seconds) for seconds in (1, 3, 6, 12)),
            Act("start", "group", 20),
            Act("worker", "tree", 0.5),
        ],
    ),
    "workers": Scenario(
        ["grid"],
        [Act("worker", "worker"), Act("checkpoint", "worker"), Act("checkpoint", "driver")],
    ),
    "ray": Scenario(
        ["grid"], [Act("worker", "raylet", 2), Act("checkpoint", "gcs"), Act("worker", "raylet", 9)]
    ),
    "search": Scenario(
        ["search"],
        [
            Act("checkpoint", "driver"),
            Act("worker", "worker"),
            Act("late", "group"),
            Act("worker", "gcs", 3),
        ],
    ),
    "early stop": Scenario(
        ["search"], [Act("worker", "raylet", 3), Act("late", "worker"), Act("late", "tree", 0.5)]
    ),
    "checkpoints": Scenario(
        ["grid"],
        [
            Act("checkpoint", "group", 0.2, damage="delete"),
            Act("checkpoint", "tree", 0.2, damage="alter"),
            Act("checkpoint", "driver", 0.2, damage="cut"),
            Act("checkpoint", "group", 0.2, damage="all"),
        ],
    ),
    "stopped": Scenario(["grid"], [Act("checkpoint", "stop"), Act("worker", "worker")]),
    "publishing": Scenario(
        ["grid"],
        [
            Act("publishing", "driver", 2),
            Act("publishing", "group", 6),
            Act("publishing", "tree", 4),
            Act("publishing", "publisher", 2),
        ],
    ),
    "pair": Scenario(
        ["grid", "search"],
        [
            Act("worker", "driver", 2),
            Act("worker", "driver", 2),
            Act("checkpoint", "worker"),
            Act("checkpoint", "group"),
            Act("worker", "gcs"),
        ],
    ),
    "signals": Scenario(
        ["grid"],
        [
            Act("worker", "SIGTERM", 2),
            Act("checkpoint", "SIGTERM"),
            Act("worker", "SIGINT", 2),
            Act("checkpoint", "SIGUSR1"),
            Act("start", "SIGTERM", 9),
        ],
    ),
    "node": Scenario(["grid"], [Act("node", "node"), Act("node", "node", 3)], cluster=True),
}


def delays(scenario: Scenario, rng: random.Random) -> list[float]:
    """Seconds after the moment of each act."""
    return [rng.uniform(0, act.within) for act in scenario.acts]
