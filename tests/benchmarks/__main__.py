"""Benchmarks: `python -m tests.benchmarks [steps] [scaling] [packing] [studies] [quality]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PARTS = ("steps", "scaling", "packing", "studies", "quality")
OUT = Path("runs/benchmarks")

EPILOG = """\
parts:
  steps    training steps beside a textbook implementation, and beside their matrix products
  scaling  memory and time of a step against atoms, batch and edges
  packing  what several processes train at once, on one GPU or the cores of a CPU
  studies  what a study costs beside training, through us, Optuna alone, Ray Tune and MLflow
  quality  compute until a search has found the best configuration, on recorded curves

Variants take turns, each in a process of its own. Results are medians; on a shared machine look at
CPU time, of one thread. Needs what the tests need.
"""


def main() -> None:
    """Measure, write JSON and Markdown, and show the latter."""
    chosen = _parser().parse_args()
    if chosen.render is not None:
        from tests.benchmarks.render import render

        sys.stdout.write(render(json.loads(chosen.render.read_text())))
        return
    if chosen.record:
        _record()
        return
    _measure(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="What training steps, studies and searches cost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("parts", nargs="*", help=f"of {', '.join(PARTS)} (default: all)")
    add("--quick", action="store_true", help="few cases and rounds: some minutes")
    add("--full", action="store_true", help="also the points that take gigabytes")
    add("--models", nargs="+", help="egnn, gns, forcenet (default: all; quick: egnn)")
    add("--stages", nargs="+", help="masking, denoising, energy_forces")
    add("--sizes", nargs="+", metavar="ATOMS", help="81, 774 (default: both; quick: 81)")
    add("--variants", nargs="+", help="textbook, textbook_sped_up, eager, compiled, bf16")
    add("--threads", nargs="+", type=int, help="default: 1 2; quick: 1")
    add("--rounds", type=int, help="turns of each variant (default: 7; quick: 3)")
    add("--device", help="default: cuda where there is one, else cpu")
    add("--out", type=Path, default=OUT, help=f"folder of results (default: {OUT})")
    add("--render", type=Path, metavar="JSON", help="only show the tables of earlier results")
    add("--record", action="store_true", help="only record the curves of `quality` anew")
    return parser


def _measure(chosen: argparse.Namespace) -> None:
    from study.core.provenance import git_commit, gpus, hardware, packages
    from tests.benchmarks.render import render

    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        raise SystemExit(f"no such part: {', '.join(sorted(unknown))}; there are {PARTS}")
    chosen.device = chosen.device or ("cuda" if gpus() else "cpu")
    now = datetime.now(UTC)
    results: dict[str, Any] = {
        "date": now.date().isoformat(),
        "machine": hardware(),
        "packages": packages(),
        "commit": git_commit(),
        "command": sys.argv[1:],
        "load": [os.getloadavg()[0]],
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / f"{now:%Y-%m-%dT%H%M%S}.json"
    for part in chosen.parts or PARTS:
        results[part] = MEASURES[part](chosen)
        # Written after each part, so that an interruption costs one part at most.
        path.write_text(json.dumps(results, indent=1) + "\n")
    results["load"].append(os.getloadavg()[0])
    path.write_text(json.dumps(results, indent=1) + "\n")
    text = render(results)
    path.with_suffix(".md").write_text(text)
    sys.stdout.write(f"\n{text}\n{path}\n")


def _steps(chosen: argparse.Namespace) -> Any:
    from tests.benchmarks.steps import SIZES, Choice, measure
    from tests.benchmarks.variants import STAGES, VARIANTS

    quick = chosen.quick
    named = {name.rsplit(" ", 1)[-1]: name for name in SIZES}
    sizes = chosen.sizes or (["81"] if quick else list(named))
    on_gpu = chosen.device != "cpu"
    choice = Choice(
        models=_models(chosen),
        stages=chosen.stages or STAGES,
        sizes=[named[size] for size in sizes],
        threads=chosen.threads or ([1] if quick or on_gpu else [1, 2]),
        # What oneDNN does is a question of CPUs.
        variants=chosen.variants or [n for n in VARIANTS if not (on_gpu and n.endswith("sped_up"))],
        rounds=chosen.rounds or (3 if quick else 7),
        device=chosen.device,
    )
    return measure(choice, _say)


def _scaling(chosen: argparse.Namespace) -> Any:
    from tests.benchmarks.scaling import measure

    variants = chosen.variants or ["textbook", "eager", "compiled"]
    return measure(
        _models(chosen), variants, chosen.device, _say, quick=chosen.quick, full=chosen.full
    )


def _packing(chosen: argparse.Namespace) -> Any:
    from tests.benchmarks.packing import measure

    rounds = chosen.rounds or (3 if chosen.quick else 7)
    variants = chosen.variants or ["eager", "compiled"]
    return measure(_models(chosen), variants, chosen.device, rounds, _say)


def _studies(chosen: argparse.Namespace) -> Any:
    from tests.benchmarks.studies import measure

    return measure(chosen.rounds or (1 if chosen.quick else 3), _say)


def _quality(chosen: argparse.Namespace) -> Any:
    from tests.benchmarks.searches.quality import load, measure

    return measure(load(), 5 if chosen.quick else 25)


MEASURES = {
    "steps": _steps,
    "scaling": _scaling,
    "packing": _packing,
    "studies": _studies,
    "quality": _quality,
}


def _record() -> None:
    from study.core.provenance import hardware, packages
    from tests.benchmarks.searches.quality import CURVES, record

    origin = {"processor": hardware()["processor"], "torch": packages()["torch"]}
    curves = record(_say, origin)
    CURVES.write_text(json.dumps(curves, separators=(",", ":")) + "\n")


def _models(chosen: argparse.Namespace) -> list[str]:
    return chosen.models or (["egnn"] if chosen.quick else ["egnn", "gns", "forcenet"])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
