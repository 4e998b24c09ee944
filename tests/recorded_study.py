"""Records of a study in MLflow, without running it."""

from __future__ import annotations

from study.pipeline.outcome import load_outcome
from study.planning.plan import Plan
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.scheduling.protocols import Planned
from study.tracking.tracker import Tracker


def record_study(study: StudyDir) -> StudyDir:
    """Write all that a finished study has done to a database beside its results."""
    root, uri = study.root, f"sqlite:///{study.root}/mlflow.db"
    space = study.recorded_space()
    plan = Plan(space, root, study.name, uri)
    tracker = Tracker(uri, study.name, root, plan.tags(study.write(space, uri, {})))
    tracker.open()
    tracker.wait()
    for number, entry in Journal(study.journal, "").entries().items():
        tracker.planned(Planned(number, entry.planned.work))
        for work in filter(None, (entry.planned.work.pretraining, entry.planned.work)):
            outcome = load_outcome(work.folder(root))
            assert outcome is not None
            tracker.started(work, number if work.kind == "trial" else None)
            for record in outcome.history:
                tracker.recorded(work, record)
            tracker.ended(work, outcome.result)
    assert tracker.close("FINISHED")
    return study
