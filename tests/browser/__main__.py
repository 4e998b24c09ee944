"""What people see of a study in MLflow's pages: `python -m tests.browser runs/studies/NAME`.

A real server, on a copy of the records, and a headless Chromium: the study among the experiments,
its trials below it, two of them compared, and curves. It needs a study with two finished trials,
`pip install playwright` and Chromium; without these it says so and exits 77.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sqlite3
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from study.core.records import Tag
from study.planning.study_dir import StudyDir
from study.tracking.study_view import address, save_view
from tests.mlflow_server import MlflowServer

SKIPPED = 77
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000
"""ms that a page may take."""
CURVE = "val/force_rmse"
METRIC = "val_force_rmse"
TESTED = "test_force_rmse"
KINDS = ("study", "trial")


def main() -> int:
    """Look at all pages; 0 if they show what is recorded, 1 if not, 77 if there is no browser."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser", description=__doc__)
    parser.add_argument("study", type=Path, help="its folder; MLflow's database lies beside it")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each page")
    chosen = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return _skip("`pip install playwright` is missing")
    if chromium is None:
        return _skip(f"none of {', '.join(CHROMIUMS)} is installed")
    folder = chosen.study.resolve()
    study = StudyDir(folder.parent.parent, folder.name)
    with served(study.tracking_uri()) as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE)
        wrong = 0
        for name, look in Looks(page, place, study.name).all().items():
            try:
                look()
                sys.stdout.write(f"ok     {name}\n")
            except Exception as problem:
                wrong += 1
                what = " ".join(str(problem).split())
                sys.stdout.write(f"wrong  {name}: {what[:300]}\n")
            sys.stdout.flush()
            if chosen.pictures:
                chosen.pictures.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=chosen.pictures / f"{name.replace(' ', '_')}.png")
        browser.close()
    return int(wrong > 0)


class Looks:
    """What to look for, compared with what MLflow's client says.

    Args:
        page: of the browser.
        address: of the server.
        study: its name.
    """

    def __init__(self, page: Any, address: str, study: str) -> None:
        self.page, self.address, self.study = page, address, study
        self.client = MlflowClient(address)
        experiment = self.client.get_experiment_by_name(study)
        assert experiment is not None, study
        self.experiment = experiment.experiment_id
        found = self.client.search_runs([self.experiment])
        kinds = {kind: [r for r in found if r.data.tags[Tag.KIND] == kind] for kind in KINDS}
        (self.parent,) = kinds["study"]
        self.trials = [run for run in kinds["trial"] if CURVE in run.data.metrics]
        assert len(self.trials) >= 2, "two finished trials are needed"

    def all(self) -> dict[str, Any]:
        """Name → look, in the order in which people come by."""
        return {
            "experiments": self.experiments,
            "runs below their study": self.tree,  # First: the pages remember a filter.
            "trials by filter and order": self.trials_by_address,
            "trials in the saved view": self.trials_in_view,
            "two trials compared": self.comparison,
            "curves of a trial": self.curves,
        }

    def experiments(self) -> None:
        """The study is listed."""
        self.page.goto(f"{self.address}/#/experiments")
        self._see(self.study)

    def trials_by_address(self) -> None:
        """The printed address of a study whose view is not known opens its trials in order."""
        self._open_trials(saved=False)

    def trials_in_view(self) -> None:
        """The printed address shows the arm and the test errors, too."""
        save_view(self.client, self.experiment, METRIC)
        self._open_trials(saved=True)
        # Studies of earlier versions have no arm.
        arm = [Tag.ARM] if Tag.ARM in self.trials[0].data.tags else []
        for column in (*arm, TESTED, TESTED.replace("force", "energy")):
            header = self.page.locator(".ag-header-cell", has_text=column).first
            header.wait_for(state="attached")

    def _open_trials(self, *, saved: bool) -> None:
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/{address(self.experiment, METRIC, saved=saved)}")
        self.page.get_by_text(f"Sort: {TESTED}").first.wait_for()
        ordered = sorted(self.trials, key=lambda run: run.data.metrics.get(TESTED, math.inf))
        shown = self.page.locator(".ag-pinned-left-cols-container .ag-row")
        shown.first.wait_for()
        texts = [row.inner_text() for row in sorted(shown.all(), key=_top)]
        assert len(texts) == len(self.trials), f"{len(texts)} rows of {len(self.trials)} trials"
        for text, run in zip(texts, ordered, strict=True):
            assert name_of(run) in text, f"{text!r} in the place of {name_of(run)!r}"

    def tree(self) -> None:
        """Trials are hidden below their study until it is opened."""
        query = "workflowType=machine_learning"
        self.page.goto(f"{self.address}/#/experiments/{self.experiment}/runs?{query}")
        row = self.page.locator(".ag-row", has_text=name_of(self.parent)).locator("visible=true")
        row.first.wait_for()
        trial = self.page.get_by_text(name_of(self.trials[0]), exact=True)
        assert trial.count() == 0, "trials are listed before their study is opened"
        row.locator("button:has(svg)").first.click()
        for run in self.trials[:2]:
            self._see(name_of(run))

    def comparison(self) -> None:
        """Two trials stand side by side, with their final metrics."""
        pair = self.trials[:2]
        runs, experiments = json.dumps([r.info.run_id for r in pair]), json.dumps([self.experiment])
        query = urllib.parse.urlencode({"runs": runs, "experiments": experiments})
        self.page.goto(f"{self.address}/#/compare-runs?{query}")
        for run in pair:
            self._see(name_of(run))
        self._see(CURVE)

    def curves(self) -> None:
        """A line of as many points as epochs were recorded."""
        run = self.trials[0]
        place = f"experiments/{self.experiment}/runs/{run.info.run_id}/model-metrics"
        self.page.goto(f"{self.address}/#/{place}")
        self.page.get_by_placeholder("Search metric charts").fill(CURVE)
        self._see(CURVE.partition("/")[2])
        points = self.page.locator("svg.main-svg path.point")
        points.first.wait_for(state="attached")
        drawn, recorded = (
            points.count(),
            len(self.client.get_metric_history(run.info.run_id, CURVE)),
        )
        assert drawn == recorded, f"{drawn} points of {recorded} are drawn"

    def _see(self, text: str) -> None:
        self.page.get_by_text(text, exact=True).locator("visible=true").first.wait_for()


def _top(row: Any) -> float:
    """Where a row of the table stands."""
    return float(row.bounding_box()["y"])


def name_of(run: Run) -> str:
    """A run's name in the pages."""
    return str(run.info.run_name)


@contextmanager
def served(uri: str) -> Iterator[str]:
    """The address of a server: the study's own, or one on a copy of its database."""
    if uri.startswith("http"):
        yield uri
        return
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "mlflow.db"
        with (
            closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as source,
            closing(sqlite3.connect(copied)) as target,
        ):
            source.backup(target)
        with MlflowServer(copied) as server:
            yield server.address


def _skip(reason: str) -> int:
    sys.stdout.write(f"skipped: {reason}\n")
    return SKIPPED


if __name__ == "__main__":
    sys.exit(main())
