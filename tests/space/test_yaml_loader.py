from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from study.core.errors import UserError
from study.space.yaml_loader import read_value, read_yaml


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E+4", -25000.0),
        (".5", 0.5),
        (".5e3", 500.0),
        ("1.0e+400", float("inf")),
        ("3.", 3.0),
        ("010", 10),
        ("12:30:00", "12:30:00"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2024-01-01", "2024-01-01"),
        ("'1e-3'", "1e-3"),
    ],
)
def test_a_scalar_means_what_it_looks_like(tmp_path: Path, text: str, value: Any) -> None:
    read = read_yaml(written(tmp_path, f"key: {text}\n"))["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key `a`, first on line 1"),
        ("a:\n  b: 1\n  b: 1\n", 3, "duplicate key `b`, first on line 2"),
        ("", 1, "must be a mapping"),
        ("- a\n", 1, "must be a mapping"),
        ("a: [1, 2\n", 2, "not valid YAML"),
        ("a: 1\n b: 2\n", 2, "not valid YAML"),
        ("a: &x 1\nb: *x\n", 2, "aliases (*x) are not allowed"),
        ("a: !!python/object/apply:os.system [ls, x]\n", 1, "not allowed"),
        ("a: !!float abc\n", 1, "not a number"),
        ("? [1, 2]\n: 3\n", 1, "a key must be a word"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
    ],
)
def test_what_is_no_plain_mapping_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, rule: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as refused:
        read_yaml(path)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{path}:{line}: ")
    assert rule in problem


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "[" * 60 + "]" * 60])
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="nested deeper"):
        read_yaml(written(tmp_path, text))


def test_large_files_and_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="larger than"):
        read_yaml(written(tmp_path, "#" * 1_000_001))
    path = tmp_path / "latin.yaml"
    path.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read_yaml(path)


def test_every_key_knows_its_line(tmp_path: Path) -> None:
    block = read_yaml(written(tmp_path, "# head\na: 1\nb:\n  c: 2\n"))
    assert block.lines == {"a": 2, "b": 3}
    assert block["b"].lines == {"c": 4}


def test_a_value_of_the_command_line_may_not_be_nested_without_end() -> None:
    with pytest.raises(UserError, match="--set x: nested deeper than 50 levels"):
        read_value("[" * 3000, "--set x")


def test_a_space_that_is_a_hole_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    with path.open("wb") as opened:
        opened.truncate(20_000_000_000)
    with pytest.raises(UserError, match="a regular file of at most"):
        read_yaml(path)


def test_a_pipe_is_no_space(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "space.yaml")
    with pytest.raises(UserError, match="a regular file of at most"):
        read_yaml(tmp_path / "space.yaml")
