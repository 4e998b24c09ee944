"""Results as Markdown tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from tests.benchmarks.scaling import exponent
from tests.benchmarks.studies import ITS_EPOCHS, LONG_TRIAL, SYSTEMS
from tests.benchmarks.variants import BASELINE, VARIANTS

CLOCKS = {"cpu": "processors", "wall": "wall"}
STAGE_NAMES = {"masking": "masking", "denoising": "denoising", "energy_forces": "energy + forces"}
MODEL_NAMES = {"egnn": "EGNN", "gns": "GNS", "forcenet": "ForceNet"}


def render(results: dict[str, Any]) -> str:
    """All parts that were measured."""
    parts = {
        "steps": _steps,
        "scaling": _scaling,
        "packing": _packing,
        "studies": _studies,
        "quality": _quality,
    }
    texts = [_machine(results)]
    texts += [draw(results[name]) for name, draw in parts.items() if name in results]
    return "\n\n".join(texts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _machine(results: dict[str, Any]) -> str:
    machine, packages = results["machine"], results["packages"]
    gpus = ", ".join(machine["gpus"]) or f"{machine['cores']} cores"
    load = ", ".join(f"{value:.1f}" for value in results["load"])
    return (
        f"{machine['processor']}, {gpus}, torch {packages['torch']}, {results['date']}, "
        f"code {results['commit'][:7]}, load average before and after {load}."
    )


def _steps(rows: list[dict[str, Any]]) -> str:
    """One table for each size and number of threads."""
    texts = []
    for (size, threads), chosen in itertools.groupby(
        sorted(rows, key=lambda row: (row["size"], row["threads"])),
        key=lambda row: (row["size"], row["threads"]),
    ):
        cases = list(chosen)
        shown = [name for name in VARIANTS if any(name in row["variants"] for row in cases)]
        clock = "cpu" if threads == 1 and cases[0]["device"] == "cpu" else "wall"
        head = ["model", "stage", *(VARIANTS[name].label for name in shown), "products alone"]
        body = [
            [
                MODEL_NAMES[row["model"]],
                STAGE_NAMES[row["stage"]],
                *(_variant(row, name, clock) for name in shown),
                _floor(row, clock),
            ]
            for row in cases
        ]
        many = f"{threads} thread{'s' * (threads > 1)}"
        kind = "CPU time" if clock == "cpu" else "time"
        what = f"**{size} atoms, {many}**: samples per second of {kind} (× of the textbook's)"
        texts.append(f"{what}\n\n{table(head, body)}")
    texts.append(_products(rows[0]))
    return "\n\n".join(texts)


def _products(row: dict[str, Any]) -> str:
    """How fast and how exact each setting does matrix products, seen in one row."""
    said = [
        f"{found['products']['cpu'] / 1e9:.0f} GFLOP/s and error {found['products']['error']:.0e} "
        f"({VARIANTS[name].label})"
        for name, found in row["variants"].items()
    ]
    return f"Products of float32 matrices on one thread: {', '.join(said)}."


def _variant(row: dict[str, Any], name: str, clock: str) -> str:
    if name not in row["variants"]:
        return "–"
    found = row["variants"][name]
    speed = f"{_digits(row['batch'] / found[clock])}"
    speedup = found.get(f"{clock}_speedup")
    return speed if name == BASELINE or speedup is None else f"{speed} ({speedup:.1f} ×)"


def _floor(row: dict[str, Any], clock: str) -> str:
    """What would be left if nothing but the matrix products took time."""
    if "floor" not in row:
        return "–"
    return _digits(row["batch"] / row["floor"][clock])


def _scaling(rows: list[dict[str, Any]]) -> str:
    head = ["model", "against", "variant", "from … to", "ms a step", "MiB", "exponent", "ends"]
    body = []
    for (model, series, variant), chosen in itertools.groupby(
        rows, key=lambda row: (row["model"], row["series"], row["variant"])
    ):
        points = list(chosen)
        done = [row for row in points if "reason" not in row]
        abscissa = series if series == "edges" else "atoms"
        ends = next((row["reason"] for row in points if "reason" in row), "")
        if done:
            first, last = done[0], done[-1]
            slope = exponent(points, abscissa, "cpu")
            body.append(
                [
                    MODEL_NAMES[model],
                    series,
                    VARIANTS[variant].label,
                    f"{first[abscissa]:,} … {last[abscissa]:,} {abscissa}",
                    f"{_digits(1000 * first['cpu'])} … {_digits(1000 * last['cpu'])}",
                    f"{_digits(first['peak'] / 2**20)} … {_digits(last['peak'] / 2**20)}",
                    "–" if math.isnan(slope) else f"{slope:.2f}",
                    ends,
                ]
            )
    return f"**Scaling** of a step on energy and forces, one thread\n\n{table(head, body)}"


def _packing(rows: list[dict[str, Any]]) -> str:
    head = ["model", "frames", "variant", "processes × threads", "samples/s", "× one", "MiB"]
    body = []
    for (model, batch, variant), chosen in itertools.groupby(
        rows, key=lambda row: (row["model"], row["batch"], row["variant"])
    ):
        crowds = list(chosen)
        one = crowds[0].get("samples_per_second", math.nan)  # A single process comes first.
        body += [
            [
                MODEL_NAMES[model],
                f"{batch} × 81",
                VARIANTS[variant].label,
                f"{row['processes']} × {row['threads']}",
                *_together(row, one),
            ]
            for row in crowds
        ]
    return (
        "**Packing**: processes that train at once, on energy and forces, and what all of them do "
        f"together\n\n{table(head, body)}"
    )


def _together(row: dict[str, Any], one: float) -> list[str]:
    if "reason" in row:
        return [row["reason"], "–", "–"]
    speed = row["samples_per_second"]
    return [_digits(speed), f"{speed / one:.2f}", _digits(row["peak"] / 2**20)]


def _studies(found: dict[str, Any]) -> str:
    head = [
        "through",
        "clock",
        "once",
        "per trial",
        "per epoch",
        f"of a {LONG_TRIAL / 60:g}-minute trial",
    ]
    body = [
        [
            label,
            CLOCKS[clock],
            f"{found[system][clock]['overhead_once']:.1f} s",
            f"{found[system][clock]['overhead_per_trial']:.2f} s",
            f"{1000 * found[system][clock]['overhead_per_epoch']:.0f} ms",
            f"{100 * found[system][clock]['share_of_long_trial']:.1f} %",
        ]
        for system, label in SYSTEMS.items()
        for clock in CLOCKS
    ]
    store = found["store"]
    return (
        f"**Studies**: time beside training (the long trial has {ITS_EPOCHS} epochs)\n\n"
        f"{table(head, body)}\n\n"
        f"{store['trials']} trials from one pretraining train {store['ours']:.1f} s through us, "
        f"{store['plain']:.1f} s in the plain loop: the store saves {100 * store['saved']:.0f} %."
    )


def _quality(found: dict[str, Any]) -> str:
    whole = found["grid"]["seconds"]
    head = ["search", "median", "quartiles", "of the grid", "missed"]
    body = []
    for label, search in found["searches"].items():
        ordered = sorted(search["seconds"])
        quarter = len(ordered) // 4
        spread = f"{_digits(ordered[quarter])} … {_digits(ordered[-1 - quarter])}"
        share = search["share_of_grid"]
        body.append(
            [
                label,
                f"{_digits(search['median'])} s",
                spread,
                "–" if math.isinf(share) else f"{100 * share:.0f} %",
                f"{search['missed']} of {len(ordered)}",
            ]
        )
    body.append(["whole grid", f"{_digits(whole)} s", "", "100 %", ""])
    return (
        f"**Time to quality**: compute until a finished trial is within 2 % of the best of "
        f"{found['grid']['trials']} configurations ({found['grid']['good']} are), "
        f"{found['repetitions']} repetitions, {found['workers']} workers\n\n{table(head, body)}"
    )


def _digits(value: float) -> str:
    """Two or three significant digits, without exponent."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
