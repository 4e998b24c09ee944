"""Helpers of the tests of claims: one finding, and trials of the paper's size."""

from __future__ import annotations

from analysis.claims.claim import Finding
from analysis.claims.findings import findings
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study


def told_of(study: Study, name: str) -> Finding:
    (found,) = (finding for finding in findings([study]) if finding.statement.id == name)
    return found


def of_full_size(run: Run) -> Run:
    """The same trial with the settings of the paper's Table 1, or of its extended trainings."""
    longer = int(run.params.get("finetune.epochs", 4)) > 4
    tip3p = run.params["dataset.name"] == "tip3p_water"
    for stage, epochs in (("pretrain", (100, 100, 25, 25)), ("finetune", (300, 400, 50, 75))):
        if f"{stage}.epochs" in run.params:
            run.params[f"{stage}.epochs"] = str(epochs[2 * tip3p + longer])
            run.params[f"{stage}.batch_size"] = "10" if tip3p else "16"
    return run
