"""Style shared by all figures: colours, legends, and SVG that fits into the report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from io import BytesIO, StringIO
from itertools import cycle
from textwrap import fill
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.formatting import csv, listed

INK = "#010203"
"""Stands for the colour of the text around the figure, so that it follows a dark page."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
"""Okabe and Ito's colour-blind-safe palette, without the yellow, too pale on white."""
MARKERS = ("s", "^", "D", "v", "P", "X", "*")
SIZE = (4.7, 3.5)
"""Inches; small enough that its text can be read on a phone."""
LONGEST = 60
"""Characters that a text contributes to a file name."""
SHORT, FEW = 32, 6
"""Longest name (characters) and number of names for which a legend fits inside the axes."""
LETTERS, NARROW = 60, 26
"""Characters per line of a legend above the axes, in one column and in two."""
LINE = 0.19
"""Height of a line of the legend, inches."""
MOST_LINES = 8
"""Thin lines per arm, one for each seed; more hide each other and make the page heavy."""

MOST_POINTS = 1000
"""Points of a kind; more hide each other, too, and the table beside the figure has them all."""


@dataclass(frozen=True)
class Drawing:
    """A figure with what a reader needs beside it.

    Args:
        name: of its files, without ending.
        title: what is shown.
        caption: how to read it, and how many seeds it rests on.
        alt: description for readers who cannot see it.
        figure: the drawing.
        shown: the plotted values; empty where they are not known.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    shown: pd.DataFrame


@dataclass(frozen=True)
class Look:
    """Colour, marker and dash of an arm in all figures."""

    colour: str
    marker: str
    dash: str = "-"


def slug(text: str) -> str:
    """A text as part of a file's name, shortened if long."""
    plain = re.sub(r"[^a-z0-9.]+", "_", text.lower()).strip("_.")
    if len(plain) <= LONGEST:
        return plain
    return f"{plain[:LONGEST]}-{sha256(text.encode()).hexdigest()[:8]}"


def thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST_POINTS` of the rows, evenly spread, always the same."""
    return rows.iloc[:: max(1, math.ceil(len(rows) / MOST_POINTS))]


def thinned_note(sizes: pd.Series[int]) -> str:
    """What a caption says of kinds of points of which not all are drawn."""
    return (
        "" if sizes.max() <= MOST_POINTS else f" At most {MOST_POINTS} points of a kind are drawn."
    )


def logarithmic(axis: Axis, values: pd.Series[float]) -> None:
    """Plain numbers on an axis that is logarithmic already, also where it spans little."""
    wide = values.max() > 4 * values.min()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(5))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_locator(NullLocator())


def counts(rows: pd.DataFrame) -> str:
    """Number of runs per arm of a figure, in words."""
    of_arm = rows.groupby("arm", sort=False).run_id.nunique()
    if of_arm.nunique() == 1:
        return f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{of_arm.iloc[0]} per arm."
    return f"n = {listed(f'{n} ({arm})' for arm, n in of_arm.items())}."


def looks(arms: list[str], scratch: set[str]) -> dict[str, Look]:
    """Ink and circles for training from scratch, colours and other markers for the rest."""
    # Colours that come again have another marker, and are dashed.
    again = MARKERS[3:] + MARKERS[:3]
    plain = cycle(
        [Look(*look) for look in zip(COLOURS, MARKERS, strict=True)]
        + [Look(*look, "--") for look in zip(COLOURS, again, strict=True)]
    )
    bare = cycle(Look(INK, "o", dash) for dash in ("--", ":", "-."))
    return {arm: next(bare if arm in scratch else plain) for arm in arms}


def legend(axes: Axes) -> None:
    """Inside where there is room; above the axes, in a higher figure, if names are long or many."""
    handles, names = axes.get_legend_handles_labels()
    longest = max(map(len, names), default=0)
    if longest <= SHORT and len(names) <= FEW:
        if names:
            axes.legend(loc="best")
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    folded = [fill(name, LETTERS) for name in names]
    columns = 2 if longest <= NARROW else 1
    lines = sum(name.count("\n") + 1 for name in folded) / columns
    figure.set_figheight(figure.get_figheight() + LINE * math.ceil(lines))
    figure.legend(handles, folded, loc="outside upper left", ncols=columns)


STYLE: Any = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}
"""Settings of matplotlib for all figures."""


@contextmanager
def styled(height: float = SIZE[1]) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure of one panel, `height` in inches; settings hold only inside."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()
        # Laid out once, here: each saving would do so twice again, which takes most of its time.
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        figure.set_layout_engine("none")


def svg(drawing: Drawing) -> str:
    """The figure as an `<svg>` element: same input, same text; ids unique to it."""
    text = StringIO()
    none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Every text names its fonts; one and "sans-serif" are enough.
    settings: Any = {"svg.hashsalt": drawing.name, "svg.fonttype": "none"}
    with mpl.rc_context(settings | {"font.sans-serif": ["DejaVu Sans"]}):
        FigureCanvasSVG(drawing.figure).print_svg(text, metadata=none)  # type: ignore[no-untyped-call]
    element = text.getvalue()
    element = element[element.index("<svg") :].replace(INK, "currentColor")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', element))
    element = re.sub(r' id="([^"]*)"', lambda id_: id_[0] if id_[1] in used else "", element)
    element = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{drawing.name}-", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{escape(drawing.alt)}"', 1)


def _pdf(drawing: Drawing) -> bytes:
    content = BytesIO()
    none = dict.fromkeys(("Creator", "Producer", "CreationDate"))
    with mpl.rc_context({"pdf.fonttype": 3}):
        FigureCanvasPdf(drawing.figure).print_pdf(content, metadata=none)  # type: ignore[no-untyped-call]
    return content.getvalue()


def files(drawing: Drawing) -> dict[str, bytes]:
    """Ending → content: the figure as SVG and PDF, and the plotted values as CSV."""
    return {
        "svg": f"{svg(drawing)}\n".encode(),
        "pdf": _pdf(drawing),
        **({} if drawing.shown.empty else {"csv": csv(drawing.shown)}),
    }
