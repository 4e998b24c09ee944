"""What must hold of every study once its command has ended well, whatever happened before.

`python -m tests.faults.invariants RUNS [--like OTHER]` prints every broken rule, and exits 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from study.core.atomic_io import is_locked, read_json_lines
from study.core.records import Tag, curve_name
from study.pipeline.job import Job
from study.pipeline.outcome import load_history, load_outcome
from study.scheduling.journal import Entry, Journal

Point = tuple[str, str, int, float]
"""Run, metric, step, value."""
ENDS = ("completed", "stopped", "diverged", "failed")
FINISHED = ("completed", "diverged")
"""Ends that leave a result in the folder of the work; a stopped trial has checkpoints."""
LEFTOVERS = ("*.tmp", "*.partial", "*.part")


def check_invariants(root: Path, like: Path | None = None) -> list[str]:
    """The rules that are broken in the files of all studies of a folder, a line each.

    Args:
        root: folder of all work.
        like: the same of the same studies that were never disturbed, whose weights must be equal.
    """
    problems = [f"{path}: left over" for path in _leftovers(root)]
    for journal in sorted(root.glob("studies/*/journal.jsonl")):
        if is_locked(journal.parent / "lock"):
            problems.append(f"{journal.parent}: still running")
        problems += check_journal(journal)
        for number, entry in _entries(journal).items():
            place = f"{journal.parent.name}, trial {number}"
            found = list(_check_entry(entry, _metric(journal), root))
            for work in filter(None, (entry.planned.work.pretraining, entry.planned.work)):
                found += _check_weights(work, root, like)
            problems += [f"{place}: {problem}" for problem in found]
    return problems


def check_runs(
    runs: dict[str, tuple[dict[str, str], str]], points: Iterable[Point], journal: Path, root: Path
) -> list[str]:
    """The rules that are broken in what MLflow has of a study.

    Args:
        runs: tags and status of each run, by its id.
        points: all points of all metrics.
        journal: of the study.
        root: folder of all work.
    """
    points = list(points)
    problems = [
        f"run {run_id} is {status}"
        for run_id, (_, status) in runs.items()
        if status in ("RUNNING", "SCHEDULED", "KILLED")
    ]
    counted = Counter((run_id, metric, step) for run_id, metric, step, _ in points)
    problems += [f"{point} is there {times} times" for point, times in counted.items() if times > 1]
    keys = Counter(tags[Tag.KEY] for tags, _ in runs.values() if tags[Tag.KIND] != "study")
    problems += [f"{times} runs of {key}" for key, times in keys.items() if times > 1]
    expected = _works(journal)
    problems += [f"no run of {key}" for key in expected.keys() - keys.keys()]
    problems += [f"run of unknown work {key}" for key in keys.keys() - expected.keys()]
    ids = {tags[Tag.KEY]: run_id for run_id, (tags, _) in runs.items()}
    for key, work in expected.items():
        if key in ids:
            found = {(m, s): v for run_id, m, s, v in points if run_id == ids[key] and "/" in m}
            problems += _compare(work, found, root, journal)
    return problems


def _compare(
    work: Job, found: dict[tuple[str, int], float], root: Path, journal: Path
) -> Iterator[str]:
    entries = {entry.planned.work.key: entry for entry in _entries(journal).values()}
    history = load_history(work, root)
    if work.key in entries:
        history = history[: len(entries[work.key].values)]
    written = {
        (curve_name(record.stage, name), record.epoch): _as_stored(value)
        for record in history
        for name, value in record.metrics.items()
    }
    if written != {point: _as_stored(value) for point, value in found.items()}:
        yield f"{work.label}: MLflow has {len(found)} points, other than the {len(written)} known"


def _as_stored(value: float) -> float:
    """MLflow keeps infinity as the largest number."""
    return max(min(value, sys.float_info.max), -sys.float_info.max)


def _works(journal: Path) -> dict[str, Job]:
    trials = [entry.planned.work for entry in _entries(journal).values()]
    every = [work for trial in trials for work in (trial.pretraining, trial) if work is not None]
    return {work.key: work for work in every}


def _entries(journal: Path) -> dict[int, Entry]:
    return Journal(journal, _metric(journal)).entries()


def _metric(journal: Path) -> str:
    study = json.loads((journal.parent / "study.json").read_text())
    return str(study["space"]["metric"])


def _leftovers(root: Path) -> Iterator[Path]:
    for pattern in LEFTOVERS:
        yield from root.rglob(pattern)
    for checkpoint in root.glob("work/*/epoch-*.safetensors"):
        if (checkpoint.parent / "result.json").exists():
            yield checkpoint


def check_journal(journal: Path) -> Iterator[str]:
    """No trial is planned twice, no epoch reported twice."""
    events = read_json_lines(journal)
    planned = Counter(event["number"] for event in events if event["event"] == "planned")
    keys = Counter(event["key"] for event in events if event["event"] == "planned")
    reported = Counter(
        (event["key"], event["epoch"]) for event in events if event["event"] == "reported"
    )
    for counted in (planned, keys, reported):
        for what, times in counted.items():
            if times > 1:
                yield f"{journal}: {what} is there {times} times"


def _check_entry(entry: Entry, metric: str, root: Path) -> Iterator[str]:
    work, result = entry.planned.work, entry.result
    if result is None or result.status not in ENDS:
        yield "planned, but it has not ended"
        return
    if result.status == "failed" and not result.reason:
        yield "failed without a reason"
    outcome = load_outcome(work.folder(root))
    if result.status in FINISHED and (outcome is None or outcome.result != result):
        yield "the journal and the result in its folder differ"
    if result.status != "failed":
        records = load_history(work, root)
        known = [record.metrics[metric] for record in records]
        if known[: len(entry.values)] != entry.values:
            yield "the journal and the history in its folder differ"
        if result.status == "completed" and len(entry.values) != work.training.epochs:
            yield f"{len(entry.values)} epochs are reported of {work.training.epochs}"


def _check_weights(work: Job, root: Path, like: Path | None) -> Iterator[str]:
    if like is None:
        return
    here, there = (load_outcome(work.folder(folder)) for folder in (root, like))
    names = [outcome and outcome.weights and outcome.weights.name for outcome in (here, there)]
    if names[0] != names[1]:
        yield f"{work.label}: weights {names[0]}, but {names[1]} when undisturbed"


def main(arguments: list[str] | None = None) -> int:
    """Check a folder of results, and its database if it has one."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.invariants", description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--like", type=Path, help="results of the same, never disturbed")
    chosen = parser.parse_args(arguments)
    problems = check_invariants(chosen.runs, chosen.like)
    problems += check_database(chosen.runs)
    sys.stdout.write("".join(f"{problem}\n" for problem in problems) or "all hold\n")
    return int(bool(problems))


def check_database(root: Path) -> list[str]:
    """`check_runs` of all studies in the database of a folder."""
    if not (root / "mlflow.db").exists():
        return []
    from mlflow import MlflowClient

    client, problems = MlflowClient(f"sqlite:///{root.resolve()}/mlflow.db"), list[str]()
    for journal in sorted(root.glob("studies/*/journal.jsonl")):
        experiment = client.get_experiment_by_name(journal.parent.name)
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        runs = {run.info.run_id: (run.data.tags, run.info.status) for run in found}
        points = [
            (run.info.run_id, name, point.step, point.value)
            for run in found
            for name in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, name)
        ]
        problems += check_runs(runs, points, journal, root)
    return problems


if __name__ == "__main__":
    sys.exit(main())
