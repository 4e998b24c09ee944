"""Figures can be read, however long the names of arms are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from analysis.figures import against, changes, curves, learning
from analysis.figures.style import COLOURS, INK, legend, looks, styled
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)
AUXILIARY = "finetune.task.auxiliary."


@pytest.fixture
def noisy(tabulate: Tabulate, scratch: Build, masked: Build, pretrained: Build) -> Study:
    """Nine arms, most of them pretrained by masking and trained beside denoising."""
    beside = {f"{AUXILIARY}task.name": "denoising", f"{AUXILIARY}weight": 0.01}
    beside |= {f"{AUXILIARY}task.noise_scale": 0.125}
    runs = [pretrained(seed, ratio, 0.3) for seed in SEEDS for ratio in (0.25, 0.5, 0.9)]
    for seed in SEEDS:
        error = 0.1 * (1 + seed / 50)
        runs += [scratch(seed, seed, error), scratch(10 + seed, seed, error, **beside)]
        runs += [scratch(20 + seed, seed, error, **{"finetune.epochs": 8})]
        for place, ratio in enumerate((0.25, 0.5, 0.9)):
            runs += [
                masked(30 + 10 * place + seed, seed, ratio, error * (1 - ratio / 4)),
                masked(60 + 10 * place + seed, seed, ratio, error * (1 - ratio / 3), **beside),
            ]
    return tabulate(*runs)


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("letters", [24, 26, 30, 33, 40, 60, 90])
def test_a_legend_is_as_wide_as_its_figure_at_most(letters: int, count: int) -> None:
    name = ("from scratch, ForceNet, 20 epochs, batches of 10, " * 2)[:letters]
    with styled() as (figure, axes):
        for number in range(count):
            axes.plot([0, 1], [number, 1], label=name)
        legend(axes)
    (made,) = [*figure.legends, *filter(None, [axes.get_legend()])]
    box = made.get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_no_text_is_cut_off_or_hidden(noisy: Study) -> None:
    legends = 0
    for drawing in [
        d for draw in (against, changes, curves, learning) for d in draw.drawings(noisy)
    ]:
        (axes,) = drawing.figure.axes
        numbers, canvas = ticks(axes), drawing.figure.bbox
        others = {*axes.get_xticklabels(), *axes.get_yticklabels()} - {*numbers}
        for text in {*drawing.figure.findobj(Text)} - others:
            if text.get_visible() and text.get_text():
                box = text.get_window_extent()
                assert canvas.x0 <= box.x0 < box.x1 <= canvas.x1, (drawing.name, text.get_text())
        for made in filter(None, (axes.get_legend(), *drawing.figure.legends)):
            legends += 1
            box = made.get_window_extent()
            hidden = [t.get_text() for t in numbers if box.overlaps(t.get_window_extent())]
            assert not hidden, (drawing.name, hidden)
    assert legends > 6


@pytest.mark.parametrize(("arms", "told"), [(1, "its 95 % interval, in"), (2, "over 2 arms)")])
def test_intervals_hold_together_only_where_there_are_several(
    arms: int,
    told: str,
    tabulate: Callable[..., Study],
    scratch: Callable[..., Run],
    masked: Callable[..., Run],
) -> None:
    runs = [scratch(seed, seed, 0.1 + seed / 100) for seed in range(3)]
    for arm in range(1, arms + 1):
        runs += [masked(10 * arm + seed, seed, arm / 4, 0.1) for seed in range(3)]
    (drawing,) = [d for d in changes.drawings(tabulate(*runs)) if d.name == "start_and_end"]
    assert told in drawing.caption
    assert ("Bonferroni" in drawing.caption) == (arms > 1)


def ticks(axes: Axes) -> list[Text]:
    """Numbers and names beside the axes that are within their limits."""
    return [
        label
        for axis in (axes.xaxis, axes.yaxis)
        for place, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
        if min(axis.get_view_interval()) <= place <= max(axis.get_view_interval())
    ]


def test_a_sweep_does_not_mix_what_else_differs(noisy: Study) -> None:
    sweeps = [d.shown for d in against.drawings(noisy) if "against_ratio" in d.name]
    assert len(sweeps) == 4  # Force and energy, with and without the auxiliary task.
    for shown in sweeps:
        swept = shown[np.isfinite(shown.ratio)]
        assert (swept.groupby("ratio").arm.nunique() == 1).all()


OKABE_ITO = "000000 E69F00 56B4E9 009E73 F0E442 0072B2 D55E00 CC79A7"
"""doi:10.1038/nmeth.1618; black is what the ink of the page stands for."""


def test_colours_are_okabe_and_itos_and_a_grey() -> None:
    assert {colour.removeprefix("#") for colour in COLOURS} < {*OKABE_ITO.split(), "999999"}


def test_arms_are_told_apart_without_their_colours() -> None:
    arms = [f"masking {n}" for n in range(learning.MOST_ARMS)]
    scratch = [f"scratch {n}" for n in range(3)]
    found = looks([*arms, *scratch], scratch=set(scratch))
    assert len({(look.marker, look.dash) for look in found.values()}) == len(found)
    assert all((look.colour == INK) == (arm in scratch) for arm, look in found.items())


def test_pages_keep_arms_apart_in_grey(noisy: Study) -> None:
    for drawing in curves.drawings(noisy):
        (axes,) = drawing.figure.axes
        named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        told = {(line.get_marker(), line.get_linestyle()) for line in named}
        assert len(told) == len(named) > 1
