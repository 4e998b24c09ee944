"""Do one trial of a study here and now: `python -m study.rerun STUDY NUMBER`.

Without Ray and MLflow, in this process, with every epoch in the terminal and the whole traceback
if it fails. It goes on from the trial's checkpoint; a finished trial is only shown. The study's own
command takes the result over.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.errors import UserError, exit_code
from study.core.paths import real_path

if TYPE_CHECKING:
    from study.pipeline.job import Job
    from study.planning.study_dir import StudyFolder
    from study.space.settings import Resources

# Nothing heavy is imported before it is needed, so that help appears at once.


def main(arguments: list[str] | None = None) -> int:
    """Do the trial.

    Returns:
        0; 1 if it diverged; 2 for what the user can mend; 130 after Ctrl-C. Whatever makes the
        trial fail is raised.
    """
    chosen = parser().parse_args(arguments)
    return exit_code(lambda: _rerun(chosen), "interrupted; the same command goes on\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m study.rerun",
        description=__doc__,
        epilog="Exit codes: 0 completed, 1 diverged or failed, 2 bad input, 130 interrupted.",
    )
    made.add_argument("study", type=Path, help="its folder, such as runs/studies/NAME")
    made.add_argument("number", type=int, help="of the trial, as `python -m study.status` says")
    made.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return made


def _rerun(chosen: argparse.Namespace) -> int:
    from study.pipeline.outcome import load_outcome
    from study.planning.study_dir import StudyFolder

    folder = real_path(chosen.study)
    study = StudyFolder(folder.parent.parent, folder.name)
    resources = study.recorded_space().settings.resources
    work = _work(study, chosen.number)
    if load_outcome(work.folder(study.root)) is None:
        _perform(work, study, chosen.device, resources)
    outcome = load_outcome(work.folder(study.root))
    assert outcome is not None
    result = outcome.result
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    sys.stdout.write(f"{work.label}: {result.status}: {result.reason or metrics}\n")
    return 0 if result.status == "completed" else 1


def _perform(work: Job, study: StudyFolder, device: str, resources: Resources) -> None:
    """The trial and, before it, its pretraining."""
    frames = study.frames_of(work.data_hash)
    from study.pipeline.execute import run_job
    from study.training.runtime import configure_process

    configure_process(resources.cpus, device, deterministic=resources.deterministic)
    for part in filter(None, (work.pretraining, work)):
        sys.stdout.write(f"{part.label}\n  {part.folder(study.root)}\n")
        for record in run_job(part, study.root, frames, device):
            values = ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items())
            sys.stdout.write(f"  epoch {record.epoch}/{part.epochs}: {values}\n")
            sys.stdout.flush()


def _work(study: StudyFolder, number: int) -> Job:
    from study.scheduling.journal import Journal

    entries = Journal(study.journal, "").entries()
    if number not in entries:
        raise UserError(
            f"{study.path}: has no trial {number}, only 0 to {max(entries, default=-1)}; "
            f"`python -m study.status {study.path} --all` lists them"
        )
    return entries[number].planned.work


if __name__ == "__main__":
    sys.exit(main())
