"""What all figures share: colours, saving, and SVG that fits into the report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from study.durable import write_bytes

INK = "#010203"
"""Stands for the colour of the text around the figure, so that it follows a dark page."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
"""Okabe and Ito's, told apart by colour-blind readers; yellow would vanish on a white page."""
MARKERS = ("s", "^", "D", "v", "P", "X", "*")
SIZE = (4.7, 3.5)
"""Inches; small enough that its text can be read on a phone."""


@dataclass(frozen=True)
class Drawing:
    """A figure with what a reader needs beside it.

    Args:
        name: of its files, without ending.
        title: what is shown.
        caption: how to read it, and how many seeds it rests on.
        alt: what a reader who cannot see it should know.
        figure: the drawing.
        shown: the plotted values.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    shown: pd.DataFrame


@dataclass(frozen=True)
class Look:
    """How an arm is drawn everywhere."""

    colour: str
    marker: str
    dash: str = "-"


def looks(arms: list[str], scratch: set[str]) -> dict[str, Look]:
    """Ink and circles for training from scratch, colours and other markers for the rest."""
    plain, bare = iter(zip(COLOURS * 2, MARKERS * 2, strict=True)), iter(("--", ":", "-.") * 3)
    return {
        arm: Look(INK, "o", next(bare)) if arm in scratch else Look(*next(plain)) for arm in arms
    }


@contextmanager
def styled() -> Iterator[tuple[Figure, Axes]]:
    """An empty figure of one panel; matplotlib's settings hold only inside."""
    settings: Any = {
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
    with mpl.rc_context(settings):
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def svg(drawing: Drawing) -> str:
    """The figure as an `<svg>` element: same input, same text; ids unique to it."""
    text = StringIO()
    none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": drawing.name, "svg.fonttype": "none"}):
        drawing.figure.savefig(text, format="svg", transparent=True, metadata=none)
    element = text.getvalue()
    element = element[element.index("<svg") :].replace(INK, "currentColor")
    element = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{drawing.name}-", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{escape(drawing.alt)}"', 1)


def save(drawing: Drawing, folder: Path) -> str:
    """Write `NAME.svg` and the plotted values as `NAME.csv`; return the SVG element."""
    element = svg(drawing)
    write_bytes(folder / f"{drawing.name}.svg", f"{element}\n".encode())
    write_bytes(folder / f"{drawing.name}.csv", drawing.shown.to_csv(index=False).encode())
    return element
