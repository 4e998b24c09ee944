"""Odd command lines, and spaces and code that would hang, crash or lie."""

from __future__ import annotations

import os
from pathlib import Path

SPACE = """\
question: Does it end?
seeds: [0]
trial:
  dataset: {name: ase_file, path: water.extxyz}
  split: {by: frame}
  model: {name: egnn, hidden: 8, layers: 1, cutoff: 3.0}
  finetune: {task: {name: energy_forces}, epochs: 1, batch_size: 2}
profiles:
  quick:
"""
SETS = (
    "x=" + "[" * 5000,
    "trial.seed=" + "{a: " * 3000,
    "trial.finetune.epochs=" + "9" * 6000,
    "trial.finetune.epochs=&a [*a, *a]",
    "trial.finetune.epochs=!!python/object/apply:os.system [ls]",
    "trial.finetune.epochs=\x1b[31m",
    "trial.finetune.epochs=\udce9",
    "trial.finetune.epochs.x=1",
    "question.x=5",
    "question",
    "=",
    "..=1",
    "trial..x=1",
    "profiles.quick=1",
    "trial.model.name=../egnn",
    "trial.dataset.path=/dev/zero",
    "trial.dataset.path=.",
    "trial.dataset.path=pipe.extxyz",
    "trial.dataset.path=",
    "trial.dataset.units={energy: furlong}",
    "trial.dataset.labels={energy: nothing}",
    "trial.dataset.species=[Xx]",
    "trial.finetune.lr=.nan",
    "trial.model.cutoff=1e308",
    "trial.split.test=" + "1" * 400,
)
RUNS: tuple[tuple[str, ...], ...] = (
    *(("--set", each) for each in SETS),
    ("--stop-at", "9999-12-31T23:59:59"),
    ("--stop-at", "0001-01-01T00:00"),
    ("--stop-at", "never"),
    ("--out", "loop"),
    ("--out", "water.extxyz"),
    ("--out", "/dev/null/x"),
    ("--out", "a\udce9"),
    ("--budget", "1e400h"),
    ("--budget", "-1h"),
    ("--patience", "9" * 30 + "h"),
    ("--seeds", "0-99999999999"),
    ("--seeds", "a"),
    ("--name", "../x"),
    ("--name", "\x00"),
    ("--profile", "\x1b[0m"),
    ("--space", "hole.yaml"),
    ("--space", "pipe.extxyz"),
    ("--space", "deep.yaml"),
    ("--space", "laughs.yaml"),
    ("--space", "/dev/zero"),
    ("--space", "."),
    ("--space", "zero.yaml"),
    ("--space", "null.yaml"),
    ("--space", "exit.yaml"),
    ("--space", "endless.yaml"),
)
DATA: tuple[tuple[str, ...], ...] = (
    ("inspect", "pipe.extxyz"),
    ("inspect", "/dev/zero"),
    ("inspect", "loop"),
    ("inspect", "."),
    ("inspect", ""),
    ("inspect", "no\x1b[31mname"),
    ("inspect", "hole.yaml"),
    ("inspect", "water.extxyz", "--units", "energy"),
    ("inspect", "water.extxyz", "--units", "energy=furlong"),
    ("inspect", "water.extxyz", "--units", "mass=kg"),
    ("inspect", "water.extxyz", "--labels", "energy=a,energy=b"),
    ("inspect", "water.extxyz", "--labels", "forces=\x1b[31m"),
    ("inspect", "water.extxyz", "--species", ","),
    ("split", "water.extxyz", "parts", "--test", "nan"),
    ("split", "water.extxyz", "parts", "--by", "frame", "--test", "1e400"),
    ("split", "water.extxyz", "loop"),
    ("export", "water.extxyz", "loop"),
    ("export", "water.extxyz", "/dev/full"),
    ("export", "water.extxyz", "b.extxyz", "--every", "0"),
    ("import", "water.extxyz", "--out", "loop"),
    ("verify", "water.extxyz", "pipe.extxyz"),
    ("verify", "--out", "/dev/null"),
)


def prepare(folder: Path) -> None:
    """Write what the command lines name; `water.extxyz` is there already."""
    os.mkfifo(folder / "pipe.extxyz")
    (folder / "loop").symlink_to("loop")
    with (folder / "hole.yaml").open("wb") as opened:
        opened.truncate(20_000_000_000)
    laughs = ["a0: &a0 [lol]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)
    ]
    own = SPACE.replace(
        "{name: egnn, hidden: 8, layers: 1, cutoff: 3.0}", "{name: mine, code: CODE}"
    )
    spaces = {
        "space.yaml": SPACE,
        "deep.yaml": "a: " + "[" * 100_000,
        "laughs.yaml": "\n".join(laughs),
        "zero.yaml": own.replace("CODE", "/dev/zero"),
        "null.yaml": own.replace("CODE", '"a\\0.py"'),
        "exit.yaml": own.replace("CODE", "exit.py"),
        "endless.yaml": own.replace("CODE", "pipe.extxyz"),
    }
    for name, text in spaces.items():
        (folder / name).write_text(text)
    (folder / "exit.py").write_text("import sys\nsys.exit(0)\n")


def command_lines() -> list[tuple[str, ...]]:
    """All command lines, each with its program first."""
    runs = [
        ("run", *(() if "--space" in line else ("--space", "space.yaml")), "--dry-run", *line)
        for line in RUNS
    ]
    return [*runs, *(("data", *line) for line in DATA)]
