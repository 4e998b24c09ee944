"""What one GPU makes of all this: right numbers, speed, memory, company. Ten minutes at most.

`python -m tests.gpu --out FOLDER` needs torch, torch-geometric and numpy alone, so that it runs on
a machine where nothing can be installed. It writes `gpu.json` after every measurement and a line
for each; a check that fails is told, and gives the exit code 1. `--device cpu` and
`--device pretended` rehearse it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.gpu import bench

COMPILED = ("egnn", "gns", "forcenet")
"""Models whose compiled code is measured; compiling takes minutes."""
STAGES = ("masking", "denoising", "energy_forces")


class Report:
    """Results so far, on disk and on the screen.

    Args:
        folder: where `gpu.json` goes.
        limit: seconds after which no measurement begins.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.path, self.limit = folder / "gpu.json", limit
        self.began, self.rows, self.failed = time.monotonic(), list[dict[str, Any]](), 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, kind: str, what: str, measure: Callable[[], Any]) -> None:
        """Measure, unless time is up, and keep what came of it, also a failure."""
        row: dict[str, Any] = {"kind": kind, "what": what}
        spent = time.monotonic() - self.began
        if spent > self.limit:
            row["left_out"] = f"left out, {spent:.0f} s are spent"
        else:
            try:
                row["result"] = measure()
            except Exception as problem:
                row["failed"] = f"{type(problem).__name__}: {problem}".splitlines()[0]
                sys.stderr.write(traceback.format_exc())
        row["good"] = _good(row)
        self.failed += not row["good"]
        self.rows.append(row)
        told = _told(row.get("result", row.get("failed", row.get("left_out"))))
        sys.stdout.write(f"{'' if row['good'] else 'WRONG '}{kind} {what}: {told}\n")
        sys.stdout.flush()
        self.path.write_text(json.dumps({"machine": machine(), "rows": self.rows}, indent=1))


def _good(row: dict[str, Any]) -> bool:
    if "failed" in row:
        return False
    if row["kind"] == "parity" and "result" in row:
        return all(apart < bench.TOLERANCE[kind] for kind, apart in row["result"].items())
    return row["kind"] != "repeats" or row.get("result", True) is True


def _told(result: Any) -> str:
    if isinstance(result, list):
        return "; ".join(map(_told, result))
    if isinstance(result, dict):
        return ", ".join(f"{name} {_told(value)}" for name, value in result.items())
    return f"{result:.3g}" if isinstance(result, float) else str(result)


def machine() -> dict[str, str]:
    """What was measured, and with what."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
    return {"gpu": name, "python": platform.python_version()} | versions


def run(device: str, report: Report, size: bench.Size) -> None:
    """Do all checks, the most telling first."""
    parts = bench.load_settings(small=size.small)
    models, tasks = parts["models"], parts["tasks"]
    for name, model in models.items():
        for stage in ("masking", "energy_forces"):
            measure = partial(bench.parity, model, tasks[stage], device, size)
            report.add("parity", f"{name} {stage}", measure)
    for stage in STAGES:
        measure = partial(bench.repeats, models["egnn"], tasks[stage], device, size)
        report.add("repeats", f"egnn {stage}", measure)
    _speeds(parts, device, report, size, compiled=False)
    report.add("arm", "egnn on RPBE water", partial(bench.rpbe_arm, parts, device, size))
    if device != "pretended":
        report.add("packing", "egnn", lambda: list(bench.packed(device, size)))
        _speeds(parts, device, report, size, compiled=True)


def _speeds(
    parts: bench.Parts, device: str, report: Report, size: bench.Size, *, compiled: bool
) -> None:
    for name in COMPILED if compiled else parts["models"]:
        for stage in STAGES:
            settings = parts["models"][name], parts["tasks"][stage]
            what = f"{name} {stage} {'compiled' if compiled else 'eager'}"
            report.add(
                "speed", what, partial(bench.speed, *settings, device, size, compiled=compiled)
            )


def main() -> int:
    """Run all checks; the exit code tells whether all were good."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu", "pretended"))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--limit", type=float, default=480, help="seconds (default: 480)")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --device pretended rehearses")
    size = bench.Size() if options.device == "cuda" else bench.REHEARSAL
    report, there = Report(options.out, options.limit), nullcontext()
    if options.device == "pretended":
        from tests.pretended_device import Pretended

        there = Pretended().running()
    with there:
        run(options.device, report, size)
    sys.stdout.write(f"{len(report.rows)} checks, {report.failed} failed: {report.path}\n")
    return int(report.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
