"""Tags of a study's runs in MLflow, and their descriptions."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Mapping

from study.core import provenance
from study.core.hashing import code_version
from study.core.records import SCHEMA_VERSION, Tag, as_markdown
from study.pipeline.job import Job
from study.scheduling.protocols import Member

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A commit as MLflow's pages link it."""


def common_tags(kind: str) -> dict[str, str]:
    """Tags of every run of a study."""
    return {
        Tag.KIND: kind,
        "mlflow.source.name": "python -m study.run",
        Tag.SCHEMA: str(SCHEMA_VERSION),
        Tag.CODE: code_version(),
        Tag.GIT: provenance.git_commit(),
        **_mlflow_tags(),
    }


def study_tags() -> dict[str, str]:
    """Tags of the study's own run, which has versions and machine for the tables of analysis."""
    return common_tags("study") | {
        Tag.PACKAGES: json.dumps(provenance.packages()),
        Tag.HARDWARE: json.dumps(provenance.hardware()),
    }


def _mlflow_tags() -> dict[str, str]:
    """User and commit, as MLflow's pages show them; what this machine does not know is left out."""
    found = COMMIT.match(provenance.git_commit())
    commit = {"mlflow.source.git.commit": found[0]} if found else {}
    try:
        return commit | {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):  # A container's user may have no name.
        return commit


def tags_of_work(
    work: Job,
    label: str,
    kind: str,
    parent: str,
    number: int | None,
    member: Member | None = None,
    *,
    exempt: bool | None,
) -> dict[str, str]:
    """Tags of the run of a job.

    Args:
        work: the job.
        label: what it is called, the seed last.
        kind: as which it is recorded.
        parent: the study's run.
        number: of a trial, its place in the plan.
        member: its place in population-based training, if it has one.
        exempt: whether a trial is never stopped early; None for a pretraining.
    """
    tags = common_tags(kind) | {
        Tag.KEY: work.key,
        Tag.ARM: label.rpartition(",")[0],
        Tag.DATA: work.data_hash,
        "mlflow.parentRunId": parent,
        Tag.NOTE: _description(work, label, number),
    }
    told = {Tag.NUMBER: number, Tag.EXEMPT: exempt}
    tags |= {tag: str(value) for tag, value in told.items() if value is not None}
    if member is not None:
        tags |= {Tag.GENERATION: str(member.generation), Tag.MEMBER: str(member.number)}
    if work.segment is not None and work.segment.parent is not None:
        tags[Tag.PARENT] = work.segment.parent
    if work.pretraining is not None:
        tags[Tag.PRETRAINING] = work.pretraining.key
    scheduled = work.training.schedule_epochs is not None
    if work.kind == "pretrain" and not work.start and scheduled:
        tags[Tag.WHOLE] = work.full_schedule.key
    return tags


def tags_of_continuation(
    tags: Mapping[str, str], name: str, run_id: str, experiment: str
) -> dict[str, str]:
    """Tags that lead from a part of a population to the run that it goes on from.

    Args:
        tags: of the part; its description gets a link.
        name: of the other run.
        run_id: of the other run.
        experiment: MLflow's id of the study.
    """
    link = f"[{as_markdown(name)}](#/experiments/{experiment}/runs/{run_id})"
    return {Tag.PARENT_RUN: run_id, Tag.NOTE: f"{tags[Tag.NOTE]} Goes on from the run of {link}."}


def _description(work: Job, label: str, number: int | None) -> str:
    """Short description of a job."""
    name = as_markdown(label)
    if work.start:
        return f"**{name}**: done earlier; its cost is not counted here."
    trial, stage = work.trial, work.training
    data = trial.dataset_of(stage).label
    task, data = as_markdown(stage.task.label), as_markdown(data)
    what = f"**{name}**: {task}, {_epochs(work)} on {data}."
    if work.pretraining is not None and not (work.segment and work.segment.parent):
        what += f" Starts from the run of *{as_markdown(work.pretraining.label)}*."
    return what + (f" Trial {number} of the study." if number is not None else "")


def _epochs(work: Job) -> str:
    """How long it trains; a part of a population, which epochs of the whole."""
    whole = work.training.epochs
    if work.segment is None:
        return f"{whole} epochs"
    if not work.is_part:
        return f"test after {whole} epochs"
    return f"epochs {work.segment.begin + 1} to {work.segment.until} of {whole}"
