"""The interactive page: one file, every trial, and no name in it that is more than text."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.html import explore
from analysis.html.page import write_report
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study
from study.scheduling.asha import Asha
from study.space.search.stopping import EarlyStopping

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SCRIPT = "window.Plotly = {};"


@pytest.fixture
def plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plotly, or something of its shape that is quicker to load."""
    offline = SimpleNamespace(get_plotlyjs=lambda: SCRIPT)
    monkeypatch.setitem(sys.modules, "plotly.offline", offline)
    monkeypatch.setitem(sys.modules, "plotly", SimpleNamespace(offline=offline))


def written(tmp_path: Path) -> tuple[str, list[dict[str, Any]]]:
    page = (write_report([tmp_path], tmp_path / "report").parent / "explore.html").read_text()
    (content,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    return page, json.loads(content)


@pytest.mark.usefixtures("plotly")
def test_the_page_holds_every_trial_with_its_settings_and_curve(
    tabulate: Tabulate, scratch: Build, masked: Build, tmp_path: Path
) -> None:
    runs = [scratch(0, 0, 0.2), masked(1, 1, 0.5, 0.1), masked(2, 2, 0.9, 0.1, status="diverged")]
    tabulate(*runs)
    page, (study,) = written(tmp_path)
    assert [trial["status"] for trial in study["trials"]] == ["completed", "completed", "diverged"]
    place = [setting["label"] for setting in study["settings"]].index("masking ratio")
    assert [trial["settings"][place] for trial in study["trials"]] == [None, 0.5, 0.9]
    assert study["trials"][1]["tests"][0] == pytest.approx(100)
    assert study["trials"][0]["curve"][0] == [1, 2, 3, 4]
    assert study["trials"][0]["curve"][1][-1] == pytest.approx(200)
    assert study["trials"][2]["tests"] == [None, None]
    (packed,) = re.findall(r'id="plotly">([^<]*)<', page)
    assert gzip.decompress(base64.b64decode(packed)).decode() == SCRIPT


@pytest.mark.usefixtures("plotly")
def test_the_page_loads_nothing_and_names_stay_text(
    tabulate: Tabulate, scratch: Build, tmp_path: Path
) -> None:
    hostile = "</script><script>alert(1)</script><!--"
    tabulate(scratch(0, 0, 0.2, **{"model.name": hostile}), scratch(1, 1, 0.1), name=hostile)
    page, (study,) = written(tmp_path)
    assert study["name"] == hostile
    assert "<script>alert" not in page
    assert page.count("<script") == 3
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not re.search(r"\b(src|srcset)=|@import|<link", page)


@pytest.mark.usefixtures("plotly")
def test_the_importances_of_a_search_are_there(
    tabulate: Tabulate, masked: Build, tmp_path: Path
) -> None:
    runs = [masked(n, 0, n / 20, n / 100, exempt=False) for n in range(1, 13)]
    tabulate(*runs, search={"trials": 12})
    _, (study,) = written(tmp_path)
    assert study["importances"][0]["label"] == "masking: masking ratio"
    assert study["importances"][0]["importance"] > 50


@pytest.mark.usefixtures("plotly")
@pytest.mark.parametrize(("grace", "factor"), [(1, 2), (2, 3), (5, 2)])
def test_the_rungs_are_those_of_the_scheduler(
    tabulate: Tabulate, masked: Build, tmp_path: Path, grace: int, factor: float
) -> None:
    stopping = EarlyStopping(grace_epochs=grace, reduction_factor=factor)
    tabulate(masked(0, 0, 0.5, 0.1), early_stopping=stopping.model_dump(mode="json"))
    _, (study,) = written(tmp_path)
    epochs = 4  # Of every trial here; nothing is stopped after the last.
    scheduler = Asha(stopping, epochs)
    assert study["rungs"] == sorted(rung for rung in scheduler.rungs if rung < epochs)


def test_without_plotly_the_report_tells_how_to_get_it(
    tabulate: Tabulate, scratch: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    tabulate(scratch(0, 0, 0.2))
    page = write_report([tmp_path], tmp_path / "report")
    assert "pip install -e &#34;.[explore]&#34;" in page.read_text()
    assert not (page.parent / "explore.html").exists()
    assert explore.plotly_script() == ""
