"""The page: complete, self-contained, escaped, the same every time."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import socket
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis.html import page
from analysis.html.page import write_report
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study
from analysis.report import main
from analysis.statistics.verdict import Verdict
from study.core.errors import UserError
from study.core.records import Tag
from tests.hostile import HOSTILE

Build = Callable[..., Run]
Tabulate = Callable[..., Study]


@pytest.fixture
def ablation(tabulate: Tabulate, scratch: Build, masked: Build, pretrained: Build) -> None:
    """Three seeds from scratch and at two ratios, one of them diverged."""
    runs = [scratch(seed, seed, 0.1 + seed / 100) for seed in range(3)]
    for place, ratio in enumerate((0.25, 0.5)):
        for seed in range(3):
            number = 3 + 3 * place + seed
            runs += [masked(number, seed, ratio, 0.08 + seed / 100), pretrained(seed, ratio, 0.3)]
    runs.append(masked(9, 3, 0.5, 0.1, status="diverged"))
    tabulate(*runs)


class Outline(HTMLParser):
    """Checks that tags nest; collects headings and ids."""

    VOID = ("meta", "br")

    def __init__(self, page: str) -> None:
        """Read the page."""
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


@pytest.mark.usefixtures("ablation")
def test_a_report_has_every_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    path = Path(capsys.readouterr().out.strip())
    page = path.read_text()
    outline = Outline(page)
    assert path == tmp_path / "report" / "report.html"
    assert outline.headings == [
        "The papers’ claims",
        "Comparison with controls",
        "Final errors",
        "Errors at the first evaluation",
        "Convergence",
        "Training stability",
        "Pretext-task loss",
        "Figures",
        "All trials",
        "Excluded runs",
        "Cost",
        "Provenance",
    ]
    assert not outline.open
    assert len(set(outline.ids)) == len(outline.ids)
    # 30 s a trial and 10 s a pretraining.
    assert "9 of 10 trials completed, 1 diverged; 6 min of training including pretraining" in page
    assert "it diverged in epoch 2" in page
    assert "trivial predictor" in page
    assert path.stat().st_size < 5_000_000


@pytest.mark.usefixtures("ablation")
def test_verdicts_are_a_table_with_the_words_of_the_page(tmp_path: Path) -> None:
    folder = write_report([tmp_path], tmp_path / "report").parent
    table = pd.read_parquet(folder / "verdicts.parquet")
    final = table[(table.comparison == "final") & (table.quantity == "force_rmse")]
    assert set(final.verdict) <= {*Verdict}
    assert set(final.family_size) == {2}
    (said,) = json.loads((folder / "headlines.json").read_bytes()).values()
    assert said["sentence"] in (folder / "report.html").read_text()
    assert "Diverged: from scratch 0 of 3 and masking 0.5 1 of 4" in said["sentence"]
    # The seed that diverged has no partner from scratch.
    assert "divergence" not in set(table.comparison)


@pytest.mark.usefixtures("ablation")
def test_a_report_tells_its_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "analysis.steps"):
        write_report([tmp_path], tmp_path / "report")
    first = ["reading the tables", "comparing arms, judging claims", "drawing figures"]
    assert caplog.messages == [*first, "writing the page"]


@pytest.mark.usefixtures("ablation")
def test_a_report_loads_nothing(tmp_path: Path) -> None:
    page = write_report([tmp_path], tmp_path / "report").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r"\b(src|srcset)=|@import|url\((?!#)", page)


@pytest.mark.usefixtures("ablation")
def test_a_report_is_made_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a report wants the network")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert write_report([tmp_path], tmp_path / "report").is_file()


@pytest.mark.usefixtures("ablation")
def test_the_page_forbids_all_but_its_own_style(tmp_path: Path) -> None:
    page = write_report([tmp_path], tmp_path / "report").read_text()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
    assert rules.pop("style-src") == "'unsafe-inline'"
    assert rules.pop("default-src") == "'none'"
    assert set(rules.values()) == {"'none'"}
    head = page.partition("</head>")[0]
    assert head.index("Content-Security-Policy") < head.index("<style")
    assert not re.search(r"<(script|iframe|object|embed|link|base|form|img)\b|\son\w+=", page)


@pytest.mark.usefixtures("ablation")
def test_every_figure_has_its_words_and_its_files(tmp_path: Path) -> None:
    path = write_report([tmp_path], tmp_path / "report")
    figures = re.findall(r"<figure>.*?</figure>", path.read_text(), re.DOTALL)
    drawn = {p.stem for p in path.parent.glob("*.svg")}
    assert len(figures) == len(drawn) > 5
    for figure in figures:
        (alt,) = re.findall(r'<svg role="img" aria-label="([^"]*)"', figure)
        assert len(alt) > 20
        assert re.search(r"\d", alt)
        files = re.findall(r'href="([^"#]+)"', re.sub(r"<svg.*</svg>", "", figure, flags=re.DOTALL))
        (stem,) = {Path(name).stem for name in files}
        assert {Path(name).suffix for name in files} == {".csv", ".svg", ".pdf"}
        assert (path.parent / f"{stem}.pdf").read_bytes().startswith(b"%PDF-")
        values = pd.read_csv(path.parent / f"{stem}.csv")
        assert len(values) > 0
        assert re.search(r"\bn\s*=\s*\d", figure)
        svg = (path.parent / f"{stem}.svg").read_text()
        assert svg.strip() in figure
        drawn.remove(stem)
    assert not drawn


@pytest.mark.usefixtures("ablation")
def test_the_same_tables_give_the_same_report(tmp_path: Path) -> None:
    first = {
        p.name: p.read_bytes()
        for p in write_report([tmp_path], tmp_path / "report").parent.iterdir()
    }
    again = {
        p.name: p.read_bytes()
        for p in write_report([tmp_path], tmp_path / "report").parent.iterdir()
    }
    assert first == again
    kinds = {".html", ".svg", ".pdf", ".csv", ".json", ".parquet"}
    assert {Path(name).suffix for name in first} == kinds


def test_a_report_leaves_its_own_files_and_those_of_others(
    tabulate: Tabulate, scratch: Build, masked: Build, tmp_path: Path
) -> None:
    runs = [scratch(seed, seed, 0.1) for seed in range(3)]
    two = [masked(10 * n + seed, seed, n / 4, 0.1) for n in (1, 2) for seed in range(3)]
    tabulate(*runs, *two)
    folder = write_report([tmp_path], tmp_path / "report").parent
    stale = folder / "force_rmse_against_ratio.csv"
    changed = folder / "force_rmse_against_ratio.svg"
    assert stale.is_file()
    changed.write_text("edited by hand")
    foreign = folder / "notes.txt"
    foreign.write_text("mine")
    tabulate(*runs)
    write_report([tmp_path], folder)
    names = {path.name for path in folder.iterdir()}
    assert names == set(json.loads((folder / "files.json").read_text())) | {
        "files.json",
        foreign.name,
        changed.name,
    }
    assert "report.html" in names


def test_a_manifest_cannot_name_files_elsewhere(
    tabulate: Tabulate, scratch: Build, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("x")
    (tmp_path / "report").mkdir()
    named = {"../other.csv": hashlib.sha256(b"x").hexdigest()}
    (tmp_path / "report" / "files.json").write_text(json.dumps(named))
    tabulate(scratch(0, 0, 0.1))
    write_report([tmp_path], tmp_path / "report")
    assert other.is_file()


@pytest.mark.usefixtures("ablation")
def test_plotted_values_lie_beside_the_figure(tmp_path: Path) -> None:
    folder = write_report([tmp_path], tmp_path / "report").parent
    values = pd.read_csv(folder / "force_rmse_against_ratio.csv")
    assert len(values) == 9
    assert values.query("ratio == 0.25").value.tolist() == pytest.approx([80, 90, 100])


@pytest.mark.usefixtures("ablation")
def test_the_answer_and_its_pictures_come_before_any_table(tmp_path: Path) -> None:
    page = write_report([tmp_path], tmp_path / "report").read_text()
    header = page.partition("<header>")[2].partition("</header>")[0]
    titles = re.findall(r"<figcaption><strong>(.*?)\.</strong>", header)
    assert titles[:2] == [
        "Change of the final force error by arm",
        "Force RMSE against masking ratio",
    ]
    assert titles[2:] == [
        "Final force RMSE",
        "Final energy RMSE",
        "Force RMSE during finetuning",
        "Energy RMSE during finetuning",
    ]
    assert 'class="lead"' in header.partition("<figure>")[0]
    assert "<table>" not in header


@pytest.mark.usefixtures("ablation")
def test_cells_name_their_columns_where_headings_are_hidden(tmp_path: Path) -> None:
    page = write_report([tmp_path], tmp_path / "report").read_text()
    cells = re.findall(r"<td[^>]*>", page)
    assert cells
    assert all("data-label=" in cell for cell in cells)
    assert 'data-label="Force RMSE (meV/Å)"' in page


@pytest.mark.usefixtures("ablation")
def test_figures_tell_what_they_show(tmp_path: Path) -> None:
    page = write_report([tmp_path], tmp_path / "report").read_text()
    assert 'aria-label="Mean test force RMSE (meV/Å): from scratch 110; masking 0.25 90.0;' in page


@pytest.mark.filterwarnings("ignore:Glyph")  # of scripts that the plots' font lacks
def test_hostile_names_stay_text(
    tabulate: Tabulate,
    scratch: Build,
    masked: Build,
    tmp_path: Path,
) -> None:
    hostile = [text.replace("\0", "") for text in HOSTILE]
    trials = [scratch(n, n, 0.1, **{"model.name": text}) for n, text in enumerate(hostile)]
    failed = masked(99, 99, 0.5, 0.1, status="failed")
    failed.tags[Tag.REASON] = " ".join(hostile)
    tabulate(*trials, failed, name=" ".join(hostile), warning=" ".join(hostile))
    folder = tmp_path / "report"
    page = write_report([tmp_path], folder).read_text().replace("\N{WORD JOINER}", "")
    assert not re.search(r"<(script|iframe|object|embed|link|base|form|img)\b", page)
    assert not any(unicodedata.category(sign) in ("Cc", "Cf") for sign in page if sign != "\n")
    assert "{{ 7 * 7 }}" in page
    assert "&lt;script&gt;" in page
    for picture in folder.glob("*.svg"):
        assert not re.search(r"<(script|iframe|img|foreignObject)\b", picture.read_text())
    for table in folder.glob("*.csv"):
        text = io.StringIO(table.read_bytes().decode(), newline="")
        cells = [cell for row in csv.reader(text) for cell in row]
        assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "@"))]


def test_a_study_from_scratch_alone_reports(
    tabulate: Tabulate, scratch: Build, tmp_path: Path
) -> None:
    tabulate(*(scratch(seed, seed, 0.1) for seed in range(3)))
    page = write_report([tmp_path], tmp_path / "report").read_text()
    assert "The test force RMSE is 100 ± 0 meV/" in page
    assert "3 of 3 trials completed; 90.0 s of training including pretraining" in page
    assert "Pretext-task loss" not in page


def test_what_may_make_errors_too_low_stands_at_the_top(
    tabulate: Tabulate, scratch: Build, masked: Build, tmp_path: Path
) -> None:
    trials = [scratch(seed, seed, 0.1 + seed) for seed in range(3)]
    trials += [masked(3 + seed, seed, 0.5, 0.05 + seed) for seed in range(3)]
    tabulate(*trials)
    assert "Warning" not in write_report([tmp_path], tmp_path / "report").read_text()
    seen = "pretrain-0123 was split otherwise and may have seen frames that are tested"
    tabulate(*trials, warning=seen)
    page = write_report([tmp_path], tmp_path / "report").read_text()
    assert page.index(f"Warning: {seen}.") < page.index("The papers")


@pytest.mark.parametrize("started", [0, 2])
def test_an_unfinished_study_reports(
    tabulate: Tabulate, scratch: Build, tmp_path: Path, started: int
) -> None:
    tabulate(*(scratch(seed, seed, 0.1, status="running") for seed in range(started)))
    assert "No trial has completed yet" in write_report([tmp_path], tmp_path / "report").read_text()


def test_missing_tables_name_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"run `python -m analysis.export`"):
        write_report([tmp_path], tmp_path / "report")
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_figures_drawn_by_several_processes_are_the_same(
    tabulate: Tabulate, scratch: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / f"study-{place}" for place in range(2)]
    for place, folder in enumerate(folders):
        tabulate(*(scratch(n, n, 0.1 + place / 10) for n in range(2)), name=folder.name)
        folder.mkdir()
        (tmp_path / "tables").rename(folder / "tables")
    contents = []
    monkeypatch.setattr(page.os, "cpu_count", lambda: 2)
    for out, least in ((tmp_path / "many", 2), (tmp_path / "one", 99)):
        monkeypatch.setattr(page, "MANY_STUDIES", least)
        write_report(folders, out)
        contents.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert contents[0] == contents[1]
    assert sum(name.endswith(".pdf") for name in contents[0]) >= 4
