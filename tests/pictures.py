"""The pictures of the documents, from real studies: `python -m tests.pictures --out runs`.

The studies of the README are run in `--out`, or only read where they are finished; the terminal is
drawn while one runs. It needs `pip install playwright pyte optuna-dashboard plotly` and Chromium;
pictures have few colours, so that they are small. `--only report optuna` makes some of them.
`nve.png` is not among them: `analysis.dynamics` draws it, of a study of flexible water.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from PIL import Image

from study.planning.study_dir import StudyDir
from study.tracking.study_view import address
from tests import terminal
from tests.browser.__main__ import CHROMIUMS, METRIC, PATIENCE, served

COLOURS = 128
"""Colours of a picture."""
RUN = [sys.executable, "-m", "study.run", "--profile", "quick", "--out"]


@dataclass
class Pictures:
    """Makes each picture in a browser or terminal.

    Args:
        browser: Chromium.
        study: of the README.
        search: of the README.
        folder: of the pictures.
    """

    browser: Any
    study: StudyDir
    search: StudyDir
    folder: Path

    def all(self) -> dict[str, Callable[[], None]]:
        """Name → what makes it; the studies are run on the way."""
        return {
            "terminal": self.terminal,
            "report": lambda: self.report("light"),
            "report_dark": lambda: self.report("dark"),
            "explore": self.explore,
            "mlflow_runs": self.trials,
            "mlflow_compare": self.comparison,
            "optuna": self.dashboard,
        }

    def terminal(self) -> None:
        """The live table of the study, if it is not finished."""
        with tempfile.TemporaryDirectory() as folder:
            drawn = Path(folder) / "terminal.svg"
            command = [*RUN, str(self.study.root), "--space", "masking_ratio"]
            terminal.main(["--out", str(drawn), "--", *command])
            if drawn.is_file():
                with self.page(800, 520) as page:
                    page.goto(drawn.as_uri())
                    self.save(page.locator("svg").first, "terminal")

    def report(self, scheme: str) -> None:
        """The first screen of the report."""
        with self.page(1280, 800, color_scheme=scheme) as page:
            page.goto((self.study.path / "report" / "report.html").as_uri())
            self.save(page, "report" if scheme == "light" else f"report_{scheme}")

    def explore(self) -> None:
        """The interactive page."""
        with self.page(1280, 1000) as page:
            page.goto((self.study.path / "report" / "explore.html").as_uri())
            page.locator(".js-plotly-plot .main-svg").first.wait_for()
            page.wait_for_timeout(2000)
            self.save(page, "explore")

    def trials(self) -> None:
        """The page of MLflow that a study's address opens."""
        with self.mlflow() as (page, place, experiment):
            page.goto(f"{place}/{address(experiment, METRIC, saved=True)}")
            page.locator(".ag-row").first.wait_for()
            self.save(page, "mlflow_runs")

    def comparison(self) -> None:
        """The charts of all trials in MLflow."""
        with self.mlflow() as (page, place, experiment):
            view = address(experiment, METRIC, saved=False)
            page.goto(f"{place}/{view}&compareRunsMode=CHART")
            page.locator("svg.main-svg").first.wait_for()
            self.save(page, "mlflow_compare")

    @contextmanager
    def mlflow(self) -> Iterator[tuple[Any, str, str]]:
        """A page, the address of a server, and the id of the study's experiment there."""
        with served(self.study.tracking_uri()) as place, self.page(1400, 800) as page:
            experiment = MlflowClient(place).get_experiment_by_name(self.study.name)
            assert experiment is not None
            yield page, place, experiment.experiment_id

    def dashboard(self) -> None:
        """The search in Optuna's dashboard."""
        if not self.search.path.exists():
            run = [*RUN, str(self.search.root), "--space", "full_search", "--json"]
            subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = Path(sys.executable).with_name("optuna-dashboard")
        log = self.search.path / "optuna.log"
        server = subprocess.Popen([program, str(log), "--port", str(port)])
        place = f"http://127.0.0.1:{port}/dashboard"
        try:
            _wait_for(place)
            with self.page(1400, 1000) as page:
                page.goto(f"{place}/studies/0")
                page.locator(".js-plotly-plot").first.wait_for()
                self.save(page, "optuna")
        finally:
            server.terminate()
            server.wait()

    @contextmanager
    def page(self, width: int, height: int, **options: Any) -> Iterator[Any]:
        """A page in a profile of its own."""
        page = self.browser.new_page(viewport={"width": width, "height": height}, **options)
        page.set_default_timeout(PATIENCE)
        try:
            yield page
        finally:
            page.close()

    def save(self, shown: Any, name: str) -> None:
        """Write a page, or a part of one, in few colours."""
        page = shown if hasattr(shown, "goto") else shown.page
        page.wait_for_timeout(3000)
        assistant = page.get_by_text("MLflow Assistant").first
        if assistant.is_visible():  # It takes a quarter of the page.
            assistant.locator("xpath=ancestor::*[.//button][1]").get_by_role("button").last.click()
            page.wait_for_timeout(1000)
        picture, path = Image.open(BytesIO(shown.screenshot())), self.folder / f"{name}.png"
        reduced = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        reduced.save(path, optimize=True)
        sys.stdout.write(f"{path}: {path.stat().st_size / 1024:.0f} kB\n")
        sys.stdout.flush()


def _wait_for(place: str) -> None:
    """Return when a server answers."""
    until = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            urllib.request.urlopen(place).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
        else:
            return


def main() -> int:
    """Make the pictures; 1 if one could not be made."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the studies")
    parser.add_argument("--study", default="masking_ratio-quick")
    parser.add_argument("--search", default="full_search-quick")
    parser.add_argument("--pictures", type=Path, default=Path(__file__).parents[1] / ".pictures")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the pictures")
    chosen = parser.parse_args()
    from playwright.sync_api import sync_playwright

    root, wrong = chosen.out.resolve(), 0
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        studies = StudyDir(root, chosen.study), StudyDir(root, chosen.search)
        for name, make in Pictures(browser, *studies, chosen.pictures).all().items():
            try:
                if name in (chosen.only or [name]):
                    make()
            except Exception as problem:
                wrong += 1
                sys.stdout.write(f"{name}: {' '.join(str(problem).split())[:300]}\n")
        browser.close()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
