"""What a finished study gets by itself; that it really gets it, `test_study` shows."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console

from study.console.study_summary import StudySummary
from study.core.records import JobResult
from study.pipeline.job import Job
from study.scheduling.journal import Entry
from study.scheduling.protocols import Planned
from study.tracking import publish as tracking_publish
from study.tracking.publish import STATE, PublishingError, by_hand, is_current, page_of, publish

RECORDS = {"run": "r", "ended": 17}


def instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Run a program in place of the commands; it finds the study's folder in `sys.argv[1]`."""
    command = [sys.executable, "-c", f"import sys, time, pathlib, os\n{program}"]
    monkeypatch.setattr(tracking_publish, "command", lambda study, **_: [*command, str(study)])


def published(study: Path, uri: str = "sqlite:///m.db", patience: float = 60) -> None:
    publish(study, uri, RECORDS, model=True, patience=patience)


WRITES_PAGE = """
page = pathlib.Path(sys.argv[1]) / "report" / "report.html"
page.parent.mkdir()
names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
page.write_text("-".join(os.environ.get(name, "") for name in names))
"""


def test_a_report_is_of_the_records_that_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, WRITES_PAGE)
    assert not is_current(tmp_path, RECORDS)
    published(tmp_path)
    assert is_current(tmp_path, RECORDS)
    assert not is_current(tmp_path, RECORDS | {"ended": 18})
    page_of(tmp_path).unlink()
    assert not is_current(tmp_path, RECORDS)


def test_a_servers_password_is_not_lost_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, WRITES_PAGE)
    published(tmp_path, "https://me:s%40cret@host:5000")
    assert page_of(tmp_path).read_text() == "me-s@cret"


def test_steps_are_told_as_they_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    instead(
        monkeypatch,
        f"""
print("step: reading", flush=True)
while not pathlib.Path({str(told)!r}).exists():
    time.sleep(0.01)
print("a page")
""",
    )
    steps: list[str] = []

    def hear(step: str) -> None:
        steps.append(step)
        told.touch()

    publish(tmp_path, "sqlite:///m.db", RECORDS, model=True, patience=60, on_step=hear)
    assert steps == ["reading"]


@pytest.mark.parametrize(
    ("program", "patience", "reason"),
    [
        ("sys.stderr.write('warning: x\\nhost: does not answer\\n'); sys.exit(2)", 60, "host: do"),
        ("1 / 0", 60, "ZeroDivisionError: division by zero"),
        ("os.kill(os.getpid(), 9)", 60, "exit code -9"),
        (
            "sys.exit('(sqlite3.OperationalError) database or disk is full\\n[SQL: UPDATE]\\n"
            "(Background on this error at: https://sqlalche.me/e/20/e3q8)')",
            60,
            "database or disk is full",
        ),
        ("time.sleep(60)", 0.5, "timed out after 0.5 s"),
    ],
)
def test_what_fails_says_why_and_counts_as_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, patience: float, reason: str
) -> None:
    instead(monkeypatch, program)
    with pytest.raises(PublishingError, match=reason) as caught:
        published(tmp_path, patience=patience)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / STATE).exists()


def test_an_interruption_ends_the_other_process_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, study = tmp_path / "waiting", tmp_path / "study"
    study.mkdir()
    communicate = subprocess.Popen.communicate

    def awaited(process: subprocess.Popen[str], **options: Any) -> tuple[str, str]:
        waiting.touch()
        return communicate(process, **options)

    monkeypatch.setattr(subprocess.Popen, "communicate", awaited)
    instead(
        monkeypatch,
        f"""
try:
    while not pathlib.Path({str(waiting)!r}).exists():
        time.sleep(0.01)
    os.kill(os.getppid(), {signal.SIGINT:d})
    time.sleep(60)
    pathlib.Path(sys.argv[1], "went on").touch()
finally:
    pathlib.Path(sys.argv[1], "tidied").touch()
""",
    )
    with pytest.raises(KeyboardInterrupt):
        published(study)
    assert [path.name for path in study.iterdir()] == ["tidied"]


def test_a_killed_study_is_published_no_further() -> None:
    code = "import time; from study.tracking.publish import end_with_parent; end_with_parent(); "
    code += "print(1, flush=True); time.sleep(60)"
    parent = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {code!r}], stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline(), flush=True)
"""
    shown = subprocess.check_output([sys.executable, "-c", parent], text=True)
    child, deadline = int(shown.split()[0]), time.monotonic() + 30
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def entry(tiny: Any) -> Entry:
    work = Job("trial", tiny(pretrain=None), "d", "c")
    result = JobResult("completed", metrics={"test_force_rmse": 0.1, "test_energy_rmse": 0.1})
    return Entry(Planned(0, work), [0.1], result)


def ending(folder: Path, *, whole: bool = True) -> StudySummary:
    """Of a study, `sh ow/studies/s`."""
    study = folder / "sh ow" / "studies" / "s"
    study.mkdir(parents=True)
    plan = SimpleNamespace(
        folder=SimpleNamespace(path=study),
        root=study.parent.parent,
        tracking_uri="http://host",
        space=SimpleNamespace(
            settings=SimpleNamespace(tune=None, search=None, seeds=[0], metric="val_force_rmse")
        ),
        warnings=[],
    )
    tracker: Any = SimpleNamespace(
        state=lambda: RECORDS, experiment_id="7", whole=whole, has_view=True
    )
    return StudySummary(plan, tracker, Console(width=500), as_json=True)  # type: ignore[arg-type]


def concluded(
    folder: Path, entry: Entry, capsys: pytest.CaptureFixture[str], *, whole: bool = True
) -> str:
    """What is said of the study at its end."""
    end = ending(folder, whole=whole)
    end.publish([entry], 60)
    end.show_places()
    return capsys.readouterr().out


def test_failures_come_with_the_command_that_tells_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: Entry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    end = ending(tmp_path)
    end.show_results([entry])
    assert "failed" not in capsys.readouterr().out
    end.show_results([entry, Entry(entry.planned, [], JobResult("failed", "no such file"))])
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("1 trial failed; ")
    assert told.endswith(": python -m study.status 'sh ow/studies/s'")


def test_the_user_is_told_where_the_report_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: Entry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    instead(monkeypatch, WRITES_PAGE)
    monkeypatch.chdir(tmp_path)
    event, *lines = concluded(tmp_path, entry, capsys).splitlines()
    page = tmp_path / "sh ow/studies/s/report/report.html"
    assert event == f'{{"event": "report", "page": "{page}", "reason": ""}}'
    assert "Report: sh ow/studies/s/report/report.html" in lines
    query = "workflowType=machine_learning&viewStateShareKey=trials"
    assert lines[-1].strip() == f"http://host/#/experiments/7/runs?{query}"


def test_a_report_that_fails_is_one_line_with_the_command_to_repeat_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: Entry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    instead(monkeypatch, "sys.exit('no space left')")
    monkeypatch.chdir(tmp_path)
    told, event, *lines = concluded(tmp_path, entry, capsys).splitlines()
    start = "Report or model upload failed (no space left); retry with "
    assert told.startswith(f"{start}python -m analysis.export ")
    assert told.endswith(" && python -m analysis.report 'sh ow/studies/s' --log")
    assert event == '{"event": "report", "page": null, "reason": "no space left"}'
    assert not any(line.startswith("Report:") for line in lines)


@pytest.mark.parametrize(("reason", "fault"), [("No space left on device", True), ("x", False)])
def test_a_full_disk_is_a_fault_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Entry, reason: str, *, fault: bool
) -> None:
    instead(monkeypatch, f"sys.exit({reason!r})")
    end = ending(tmp_path)
    end.publish([entry], 60)
    assert end.fault == fault


def test_nothing_is_made_of_records_with_gaps_or_without_a_completed_trial(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: Entry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    instead(monkeypatch, WRITES_PAGE)
    diverged = Entry(entry.planned, [], JobResult("diverged"))
    for name, ended, whole in (("gaps", entry, False), ("none", diverged, True)):
        told = concluded(tmp_path / name, ended, capsys, whole=whole)
        assert "python -m analysis.export" in told
        assert "Report:" not in told
    assert not list(tmp_path.rglob("report.html"))


def test_models_of_properties_stay_out() -> None:
    assert "study.predict" in by_hand("s", model=True)
    assert "study.predict" not in by_hand("s", model=False)
