"""Read what the README's first command has shown and written, and fail unless it is whole."""

import sys
from pathlib import Path

from mlflow import MlflowClient

shown, out = Path(sys.argv[1]).read_text(), Path(sys.argv[2])
for line in ("Test errors", "egnn scratch", "egnn masking 0.9", "zero force", "Report"):
    assert line in shown, f"the command has not shown {line!r}"

client = MlflowClient(f"sqlite:///{out}/mlflow.db")
(experiment,) = (each for each in client.search_experiments() if each.name != "Default")
runs = client.search_runs([experiment.experiment_id])
kinds = sorted(run.data.tags["study.kind"] for run in runs)
assert kinds == ["pretrain", "study", "trial", "trial"], kinds
assert {run.info.status for run in runs} == {"FINISHED"}, runs
trials = [run for run in runs if run.data.tags["study.kind"] == "trial"]
errors = [run.data.metrics["test_force_rmse"] for run in trials]
# Better than predicting no force, in eV/Å.
assert all(0 < error < 0.605 for error in errors), errors
assert (out / "studies" / experiment.name / "report" / "report.html").stat().st_size > 10_000
sys.stdout.write(f"table, report and {len(runs)} MLflow runs are whole; errors {errors}\n")
