"""Ablations with known answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


@pytest.fixture
def extended(tabulate: Tabulate, scratch: Build, masked: Build, pretrained: Build) -> Study:
    """Scratch 4 and 8 epochs, masking and its placebo 4 + 4: 100, 80, 90 and 100 meV/Å."""
    runs = [pretrained(seed, ratio, 0.3) for seed in SEEDS for ratio in (0.9, 0.5)]
    for seed in SEEDS:
        off = 1 + seed / 1000
        long = scratch(10 + seed, seed, 0.08 * off, **{"finetune.epochs": 8})
        long.points[:] = [
            p._replace(value=60.0) if p.metric == "seconds" else p for p in long.points
        ]
        fake = masked(30 + seed, seed, 0.5, 0.1 * off, **{"pretrain.task.placebo": True})
        runs += [
            scratch(seed, seed, 0.1 * off),
            long,
            masked(20 + seed, seed, 0.9, 0.09 * off),
            fake,
        ]
    return tabulate(*runs)


@pytest.fixture
def ablation(tabulate: Tabulate, scratch: Build, masked: Build, pretrained: Build) -> Study:
    """Scratch 0.10, 0.20, 0.30 eV/Å; masking takes off 10, 19 and 10 %; two trials go wrong."""
    trials = [scratch(0, 0, 0.1), scratch(1, 1, 0.2), scratch(2, 2, 0.3)]
    trials += [masked(3, 0, 0.5, 0.09), masked(4, 1, 0.5, 0.162), masked(5, 2, 0.5, 0.27)]
    trials += [masked(6, 3, 0.5, 9.0, status="diverged"), scratch(7, 3, 0.1, status="running")]
    return tabulate(*trials, *(pretrained(seed, 0.5, 0.2 + seed / 10) for seed in range(3)))
