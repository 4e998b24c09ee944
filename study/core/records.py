"""Records of a study: the names and units that tracking writes and analysis reads.

MLflow holds one experiment per study. Its parent run is the study itself, and each job (a
pretraining, or a trial's finetuning) is a child run, identified by its key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from study.core.atomic_io import DamagedFileError, read_hashed
from study.core.errors import printable
from study.core.hashing import digest

RESULT = "result.json"
"""File in the folder of a job that marks it as finished."""

StageName = Literal["pretrain", "finetune"]

Status = Literal["completed", "stopped", "diverged", "failed"]

FINAL_STATUSES = ("completed", "stopped", "diverged")
"""Statuses of jobs that a rerun of the study does not try again."""

MARKUP = re.compile(r"[\\`*_\[\]<>&|~#:@!$^{}\"']|(?<=www)\.", re.IGNORECASE)
"""Characters that mean something in Markdown or HTML, or make a link of an address."""

LIST_MARK = re.compile(r"\A[-+=]|(?<=\A\d)[.)]|(?<=\A\d\d)[.)]")
"""What makes a list, a heading or a rule at the begin of a line."""

SECRET = re.compile("user|pass|pwd|token|secret|key|sig|credential|auth", re.IGNORECASE)
"""Names of a URI's parameters whose values nobody else may see."""

SCHEMA_VERSION = 1
"""Version of columns and tags, raised when one changes its name or meaning."""


@dataclass(frozen=True)
class EpochRecord:
    """Metrics after one epoch of one stage.

    Args:
        stage: which stage.
        epoch: epochs finished, from 1.
        metrics: name without the stage's prefix → value; see `METRICS`.
    """

    stage: StageName
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class JobResult:
    """Result of a job.

    Args:
        status: completed (all epochs), stopped (early, by the scheduler), diverged or failed.
        reason: why it did not complete; empty if it did.
        metrics: final metrics, such as `test_force_rmse`; see `METRICS`.
        facts: hashes, counts and hardware, for tags.
    """

    status: Status
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Restore a result.

        Raises:
            TypeError: if it is none, as in results that nobody here wrote.
        """
        result = cls(**value)
        numbers = result.metrics.values() if isinstance(result.metrics, dict) else [None]
        wrong = result.status not in get_args(Status) or not isinstance(result.reason, str)
        if wrong or not isinstance(result.facts, dict) or not all(map(_is_number, numbers)):
            raise TypeError(f"a result must have status, reason, metrics and facts, not {value!r}")
        return result


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


COST_METRICS = ("seconds", "cpu_seconds", "flops", "energy_joule")
"""Metrics of the cost of a stage so far; some machines cannot measure all of them."""

GROUPS = ("val", "weights", "work")
"""Groups of an epoch's metrics in MLflow, whose pages sort them by name: validation errors first,
then what the weights are trained by, and costs last."""

MASKING_RATIO = "masking_ratio"
"""Parameter of trials alone, which MLflow's pages can plot errors against: 0 from scratch."""


def curve_name(stage: StageName, metric: str) -> str:
    """Name in MLflow of an epoch's metric, such as `val/force_rmse` or `pretrain/val/loss`."""
    stem = metric.removeprefix("val_")
    group = "val" if stem != metric else "work" if metric in COST_METRICS else "weights"
    return f"{'pretrain/' * (stage == 'pretrain')}{group}/{stem}"


def recorded_curve(name: str) -> str:
    """Stage and metric, as in `finetune/val_force_rmse`, of a `curve_name`; else the name itself.

    Earlier versions logged the stage and the metric.
    """
    groups, _, stem = name.rpartition("/")
    stage, _, group = groups.rpartition("/")
    if group not in GROUPS or stage not in ("", "pretrain"):
        return name
    return f"{stage or 'finetune'}/{'val_' * (group == 'val')}{stem}"


class Tag:
    """Names of the MLflow tags."""

    KIND = "study.kind"
    """study, pretrain, trial, or audit: a trial that was stopped early, finished afterwards."""
    KEY = "study.key"
    """Content hash of the job; for the parent run, of the study's name and id."""
    NUMBER = "study.number"
    """Number of the trial in the plan, from 0."""
    EXEMPT = "study.exempt"
    """True if the trial is exempt from early stopping, because it is a reference; else False."""
    TUNING = "study.tuning"
    """True if the job only serves to choose settings of its arm, and enters no comparison."""
    PARENT = "study.pbt_parent"
    """Key of the job that a trial of population-based training goes on from."""
    PARENT_RUN = "study.pbt_parent_run"
    """MLflow's id of the run of that job."""
    GENERATION = "study.pbt_generation"
    """Of population-based training, from 0; the winner's test is one more than the last."""
    MEMBER = "study.pbt_member"
    """Number of the member of the population, from 0."""
    PRETRAINING = "study.pretraining"
    """Key of the pretraining that a trial started from; absent from scratch."""
    WHOLE = "study.whole"
    """Key of the longest pretraining that begins with this one; only where some share epochs."""
    STATUS = "study.status"
    """completed, stopped, diverged or failed; absent while running."""
    REASON = "study.reason"
    """Why it did not complete."""
    SCHEMA = "study.schema"
    """Value of `SCHEMA_VERSION`."""
    DATA = "study.data_hash"
    SPLIT = "study.split_hash"
    CODE = "study.code_version"
    GIT = "study.git"
    """Commit of the working tree, with "+changes" if it has uncommitted ones."""
    PACKAGES = "study.packages"
    """JSON: package → version."""
    HARDWARE = "study.hardware"
    """JSON: host's processor, cores, memory, GPUs."""
    SPACE = "study.space"
    """JSON: the resolved space; parent run only."""
    MODEL = "study.model"
    """URI of the best model, once it is logged; parent run only."""
    FRONT = "study.front"
    """JSON: numbers of the trials on the Pareto front of a search with several objectives; parent
    run only."""
    PROFILE = "study.profile"
    WARNING = "study.warning"
    """What whoever reads the results should know: possible leakage, seeds that test on the same
    frames; parent run only."""
    QUESTION = "study.question"
    ARM = "study.arm"
    """A job's label without its seed: equal for the seeds of an arm, to group runs by."""
    UNSET = "study.unset"
    """JSON: names of the settings that are null, which are no parameters of the run."""
    NOTE = "mlflow.note.content"
    """Description in Markdown, which MLflow's pages show."""


def load_result(folder: Path) -> dict[str, Any] | None:
    """Read `result.json`; None if it or the weights that it names are missing or damaged.

    Raises:
        OSError: if the file exists but cannot be read.
    """
    try:
        value = json.loads((folder / RESULT).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(value, dict) or value.pop("digest", None) != digest(value):
        return None
    weights = value.get("weights")
    try:
        # Weights lie beside it, whoever wrote it.
        if weights and Path(weights).name != weights:
            return None
        if weights:
            read_hashed(folder / weights)
    except (DamagedFileError, TypeError, ValueError):
        return None
    return value


def as_markdown(text: str) -> str:
    """Return text that Markdown shows as it is: no link, picture, markup or HTML of it works."""
    shown = MARKUP.sub(lambda found: f"&#{ord(found[0])};", printable(" ".join(text.split())))
    return LIST_MARK.sub(lambda found: f"&#{ord(found[0])};", shown)


def flatten(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested settings to pairs of dotted name and value."""
    flattened: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            flattened += flatten(value, f"{prefix}{name}.")
        else:
            flattened.append((f"{prefix}{name}", value))
    return flattened


def without_password(uri: str) -> str:
    """Remove user, password and secret parameters from a URI, so that it may be shown and stored.

    The user of a Postgres database stays, because `~/.pgpass` finds the password by it. Text
    without `://`, and the path of a database file, come back as they are.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.endswith("sqlite"):
        return uri
    # A password may hold any character, also those that end a place; a user none of `:` and `/`.
    login, _, address = ("", "", rest) if _begins_with_host(scheme, rest) else rest.rpartition("@")
    user = login.partition(":")[0] if "postgresql" in scheme else ""
    place, _, query = f"{user}{'@' * bool(user)}{address}".partition("?")
    kept = [each for each in query.split("&") if each and not SECRET.search(each.partition("=")[0])]
    return f"{scheme}://{place}{'?' * bool(kept)}{'&'.join(kept)}"


def _begins_with_host(scheme: str, rest: str) -> bool:
    """Whether no user comes first, so that an `@` further on is that of a file's name.

    A port is told from a password that begins with digits by what a database's address allows.
    """
    port = "" if "sql" in scheme else r"(:\d+)?"
    return re.match(rf"[^@:/?]*{port}/", rest) is not None


MOST_TOLD = 4
"""Of more settings a name tells the first two, and how many there are besides."""


def few_words(told: Sequence[Sequence[str]], heads: Sequence[str]) -> list[str]:
    """Name things by what distinguishes them, in few words if that tells them apart as well.

    Args:
        told: settings of each in words.
        heads: how each name begins; may be empty.
    """
    full, brief = (
        [", ".join(filter(None, [head, *words])) for head, words in zip(heads, each, strict=True)]
        for each in (told, [_first_two(words) for words in told])
    )
    return brief if len({*brief}) == len({*full}) else full


def _first_two(words: Sequence[str]) -> Sequence[str]:
    if len(words) <= MOST_TOLD:
        return words
    return [words[0], f"{words[1]} and {len(words) - 2} more"]
