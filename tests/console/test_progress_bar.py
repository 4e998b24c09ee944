"""How far a study has come, as a notebook shows it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from study.console.progress_bar import StudyProgress, study_bar

A, B = (
    {"key": key, "kind": "trial", "label": f"egnn <{key}>, seed 0", "number": number}
    for number, key in enumerate("ab")
)
FIRST = {"key": "p", "kind": "pretrain", "label": "pretrain egnn"}
EVENTS: list[dict[str, Any]] = [
    {"event": "study", "folder": "f", "trials": 2},
    {"event": "started", "epochs": 5, **FIRST},
    {"event": "epoch", "epoch": 5, **FIRST},
    {"event": "ended", **FIRST},
    {"event": "started", "epochs": 4, **A},
    {"event": "started", "epochs": 4, **B},
    {"event": "epoch", "epoch": 1, **A},
    {"event": "ended", **A},
    {"event": "epoch", "epoch": 3, **B},
]


def test_trials_count_by_their_epochs_and_pretrainings_do_not() -> None:
    progress = StudyProgress()
    seen = []
    for event in EVENTS:
        progress.read(event)
        seen.append(progress.done)
    assert seen == [0, 0, 0, 0, 0, 0, 0.25, 1, 1.75]
    assert progress.text().startswith("1 of 2 trials, ")
    assert progress.text().endswith(" left; egnn <b>, seed 0: epoch 3 of 4")
    progress.read({"event": "ended", **B})
    assert progress.text() == "2 of 2 trials, 0 s"


def test_a_search_ends_with_the_trials_that_came() -> None:
    progress = StudyProgress()
    for event in [EVENTS[0] | {"trials": 5}, *EVENTS[1:], {"event": "ended", **B}]:
        progress.read(event)
    assert progress.text().startswith("2 of 5 trials, ")
    progress.read({"event": "complete"})
    assert progress.text() == "2 of 2 trials, 0 s"


def test_a_notebook_shows_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []

    def display(content: dict[str, str], *, raw: bool, display_id: bool) -> SimpleNamespace:
        assert raw
        assert display_id
        shown.append(content)
        return SimpleNamespace(update=lambda content, **_: shown.append(content))

    shell, pages = ModuleType("IPython"), ModuleType("IPython.display")
    monkeypatch.setattr(shell, "get_ipython", lambda: SimpleNamespace(kernel=1), raising=False)
    monkeypatch.setattr(pages, "display", display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", pages)
    with study_bar(shown=True) as advance:
        for event in [*EVENTS, {"event": "ended", **B}]:
            advance(event)
    assert shown[0]["text/plain"] == "no trial yet; starting"
    assert shown[-1]["text/plain"] == "2 of 2 trials, 0 s"
    assert any("egnn &lt;a&gt;, seed 0" in each["text/html"] for each in shown)
    assert 'value="2.000" max="2"' in shown[-1]["text/html"]
