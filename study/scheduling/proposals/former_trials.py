"""What a search learns from a former study or a CSV file before it proposes anything.

Results are copied into the study's own folder when it begins, so that it stays the same whatever
becomes of the former one.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study.core.atomic_io import write_json
from study.core.errors import MALFORMED, UserError, one_line
from study.core.hashing import digest
from study.scheduling.journal import Journal
from study.space.distributions import Hole, fill, listed
from study.space.search.option_names import labels_of
from study.space.search.start_with import parameters_of
from study.space.search_space import Space
from study.space.trial import Trial
from study.space.yaml_loader import as_block, read_value

FILE = "learned.json"
"""In the folder of a study."""
STUDY_FILE = "study.json"
PREFIX = "params_"
"""Of the columns of parameters in a table of Optuna."""


@dataclass(frozen=True)
class FormerTrial:
    """A trial that was done before.

    Args:
        parameters: as a sampler knows them.
        value: of the metric.
    """

    parameters: dict[str, Any]
    value: float


@dataclass(frozen=True)
class Former:
    """What is learned from where.

    Args:
        source: as the space names it.
        trials: those that fit the space.
        left_out: number of others, by the reason.
    """

    source: str
    trials: list[FormerTrial]
    left_out: dict[str, int]

    def __str__(self) -> str:
        """How many trials are taken, and why others are not."""
        total = len(self.trials) + sum(self.left_out.values())
        reasons = [f"{count} {reason}" for reason, count in self.left_out.items()]
        rest = f"; left out: {', '.join(reasons)}" if reasons else ""
        return f"{len(self.trials)} of {total} trials of {self.source}{rest}"

    def write(self, folder: Path) -> None:
        """Keep it in the folder of a study."""
        content = asdict(self)
        write_json(folder / FILE, content | {"digest": digest(content)})

    @classmethod
    def read(cls, folder: Path) -> Former | None:
        """What a study learned when it began; none if it wrote nothing down.

        Raises:
            UserError: if the file is damaged.
        """
        path = folder / FILE
        try:
            content = json.loads(path.read_text())
            if content.pop("digest") != digest(content):
                raise ValueError("its hash is another")
            trials = [FormerTrial(**each) for each in content["trials"]]
            return cls(content["source"], trials, content["left_out"])
        except FileNotFoundError:
            return None
        except (OSError, *MALFORMED) as problem:
            raise UserError(
                f"{path}: is damaged ({one_line(problem)}); bring back a good copy"
            ) from None


def learn(space: Space, root: Path) -> Former | None:
    """Read what a space says that its search learns from; none if it says nothing.

    Args:
        space: of the search.
        root: folder of all work.

    Raises:
        UserError: if that is neither a study nor a table, or ranks by another metric.
    """
    source = space.settings.search and space.settings.search.learn_from
    if not source:
        return None
    place = f"{space.path}: search.learn_from"
    rows = _rows_of_table if source.endswith(".csv") else _rows_of_study
    taken, left_out = list[FormerTrial](), Counter[str]()
    for row in rows(source, space, root, place):
        if isinstance(row, str):
            left_out[row] += 1
            continue
        values, value = row
        try:
            given = parameters_of(space.body, values)
        except ValueError as problem:
            left_out[f"with {str(problem).partition(', but got')[0]}"] += 1
            continue
        if missing := [name for name, is_given in given.reached.items() if not is_given]:
            left_out[f"without {', '.join(missing)}"] += 1
        else:
            taken.append(FormerTrial(given.parameters, value))
    return Former(source, taken, dict(left_out))


Row = tuple[dict[str, Any], float] | str
"""Values by name and the metric, or why there are none."""


def _rows_of_study(source: str, space: Space, root: Path, place: str) -> Iterator[Row]:
    folders = (Path(source), root / "studies" / source)
    folder = next((each for each in folders if (each / STUDY_FILE).is_file()), None)
    if folder is None:
        raise UserError(f"{place}: no study at {folders[0]} or {folders[1]}, and no CSV file")
    metric = _metric_of(folder, place)
    if metric != space.settings.metric:
        raise UserError(
            f"{place}: must rank by {space.settings.metric} as this study does, but {source} ranks "
            f"by {metric}"
        )
    for entry in Journal(folder / "journal.jsonl", metric).entries().values():
        completed = entry.result is not None and entry.result.status == "completed"
        if not completed or not entry.values or not math.isfinite(min(entry.values)):
            yield "not completed"
        elif entry.planned.work.segment is not None:
            yield "of population-based training, whose settings change midway"
        else:
            yield _values_of(entry.planned.work.trial, space), min(entry.values)


def _metric_of(folder: Path, place: str) -> str:
    try:
        return str(json.loads((folder / STUDY_FILE).read_text())["space"]["metric"])
    except (OSError, *MALFORMED) as problem:
        raise UserError(f"{place}: {folder} cannot be read ({one_line(problem)})") from None


def _values_of(trial: Trial, space: Space) -> dict[str, Any]:
    """What a trial has at the places that vary in another space, by their names there."""
    settings, values = trial.model_dump(mode="json"), dict[str, Any]()

    def choose(hole: Hole, kind: str, content: list[Any]) -> Any:
        value: Any = settings
        for key in filter(None, hole.place.split(".")):
            value = value.get(key) if isinstance(value, dict) else None
        if kind == "choice":
            (value,) = labels_of([as_block(value)], hole.place)
        values[hole.parameter] = value
        return value if value in content else content[0]

    fill(space.body, choose)
    return values


def _rows_of_table(source: str, space: Space, root: Path, place: str) -> Iterator[Row]:
    """Rows of a CSV file with a column for each name and one for the metric."""
    del root
    names, metrics = [name for name, _ in listed(space.body)], (space.settings.metric, "value")
    try:
        with Path(source).open(newline="") as file:
            table = csv.DictReader(file)
            columns = list(table.fieldnames or [])
            metric = next((each for each in metrics if each in columns), None)
            if metric is None:
                raise UserError(f"{place}: {source} must have a column {' or '.join(metrics)}")
            if not any(each.removeprefix(PREFIX) in names for each in columns):
                raise UserError(f"{place}: {source} must have columns {', '.join(names)}")
            for row in table:
                yield _row(row, names, metric)
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UserError(f"{place}: {source} cannot be read ({one_line(problem)})") from None


def _row(row: Mapping[str, Any], names: list[str], metric: str) -> Row:
    try:
        value = float(row[metric])
    except (TypeError, ValueError):
        return "without a value"
    if not math.isfinite(value) or row.get("state", "COMPLETE") != "COMPLETE":
        return "not completed"
    cells = {key.removeprefix(PREFIX): cell for key, cell in row.items() if isinstance(cell, str)}
    given = {name: read_value(cells[name], name) for name in names if cells.get(name)}
    return given, value
