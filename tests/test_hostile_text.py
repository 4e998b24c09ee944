"""Whatever stands in names, questions and messages stays text, wherever it is shown."""

from __future__ import annotations

import csv as csv_module
import io
import logging
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from rich.table import Table

from analysis.figures.style import slug
from analysis.formatting import csv
from analysis.records.mlflow_publish import _note
from study.console.formatting import PlainConsole
from study.core.errors import PrintableFormatter, UserError, printable
from study.core.records import Tag, as_markdown
from study.space.search_space import STUDY_NAME
from tests.hostile import HOSTILE

each = pytest.mark.parametrize("text", HOSTILE)


def commands_terminal(text: str) -> bool:
    """Whether a text has control or format characters besides the newline, by Unicode's classes."""
    return any(
        unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp") for sign in text if sign != "\n"
    )


@each
def test_an_error_cannot_command_a_terminal(text: str) -> None:
    assert not commands_terminal(str(UserError(f"{text}: no such file")))


@each
def test_a_warning_cannot_command_a_terminal(text: str) -> None:
    record = logging.LogRecord("study", logging.WARNING, "", 0, "%s: damaged", (text,), None)
    assert not commands_terminal(PrintableFormatter().format(record))


@each
def test_a_console_shows_text_and_no_commands_or_markup(text: str) -> None:
    console, table = PlainConsole(), Table(box=None)
    console.file = io.StringIO()
    table.add_column("trial", no_wrap=True)
    table.add_row(text)
    console.print(text)
    console.print(table)
    shown = console.file.getvalue()
    assert not commands_terminal(shown)
    if text.isprintable():
        assert text in shown


def plain(html: str) -> str:
    """The text of a page."""
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append  # type: ignore[method-assign]
    parser.feed(html)
    return "".join(parts)


@each
def test_markdown_shows_text_as_it_is(text: str) -> None:
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    shown = as_markdown(text)
    (inline,) = [token for token in tokens.parse(shown) if token.type == "inline"]
    assert {child.type for child in inline.children or ()} <= {"text", "text_special"}
    expected = printable(" ".join(text.split()))
    assert plain(tokens.render(shown)).strip() == expected
    assert not re.search(r"://|www\.|\w@\w", shown)


@each
def test_a_description_in_mlflow_has_no_markup_of_others(text: str, tmp_path: Path) -> None:
    claims = tmp_path / "claims.csv"
    rows = pd.DataFrame([{"study": "s", "claim": text, "verdict": text, "scale": "full"}])
    claims.write_bytes(csv(rows))
    headline = {"sentence": text, "remark": text}
    note = _note({Tag.QUESTION: text, Tag.MODEL: f"models:/{text}"}, headline, claims, "s")
    page = MarkdownIt("commonmark", {"html": True}).render(note)
    assert not re.search(r"<(?!/?(p|ul|li|strong|code)>)", page)


@each
@pytest.mark.parametrize("number", [1.5, -2.0, 7])
def test_a_spreadsheet_runs_no_formula_and_keeps_numbers(text: str, number: float) -> None:
    table = pd.DataFrame({text: [text, "-1.5"], "value": [number, -3], "other": ["plain", None]})
    head, first, second = csv_module.reader(io.StringIO(csv(table).decode(), newline=""))
    for cell in (head[0], first[0]):
        assert not cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d"))
        assert cell.lstrip("'") == printable(text)
    assert float(first[1]) == number
    assert [float(cell) for cell in second[:2]] == [-1.5, -3]


@each
def test_a_file_or_study_is_named_by_plain_letters(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9._-]*", slug(text))
    assert not slug(text).startswith(".")
    assert not STUDY_NAME.fullmatch(text)
