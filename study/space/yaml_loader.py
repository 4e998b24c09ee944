"""YAML as its readers expect it: YAML 1.2 scalars, no duplicate keys, every key with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from study.core.errors import UserError
from study.core.paths import read_small_file

LARGEST_FILE = 1_000_000
"""Bytes; a space is a page of text."""

DEEPEST_NESTING = 50

NO_LINE = 0
"""Of keys that do not come from a file."""

PLAIN = {
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "null", "bool", "int", "float")
}


class Block(dict[str, Any]):
    """A YAML mapping.

    Args:
        values: its keys and values.
        lines: line of each key, from 1.
    """

    def __init__(self, values: dict[str, Any], lines: dict[str, int]) -> None:
        super().__init__(values)
        self.lines = lines


def as_block(value: Any) -> Any:
    """JSON objects, at any depth, as blocks that no file has."""
    if isinstance(value, dict):
        children = {key: as_block(child) for key, child in value.items()}
        return Block(children, dict.fromkeys(value, NO_LINE))
    return [as_block(child) for child in value] if isinstance(value, list) else value


def read_value(text: str, place: str) -> Any:
    """The value that a piece of YAML stands for.

    Args:
        text: such as `5` or `{choice: [1, 2]}`.
        place: where it was written, for messages.

    Raises:
        UserError: for what is not plain YAML.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as problem:
        reason = getattr(problem, "problem", "") or "unexpected"
        raise UserError(f"{place}: not valid YAML: {reason}") from None
    except RecursionError:
        raise UserError(f"{place}: nested deeper than {DEEPEST_NESTING} levels") from None
    return None if node is None else _value(node, Path(place), 1)


def read_yaml(path: Path) -> Block:
    """The mapping that a YAML file holds.

    Raises:
        UserError: with file and line, for what is not a plain YAML mapping.
    """
    try:
        content = read_small_file(path, "a search space")
        if len(content) > LARGEST_FILE:
            raise UserError(f"{path}: larger than {LARGEST_FILE} bytes; this is no search space")
        text = content.decode()
        node = yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; save it as UTF-8") from None
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {problem.problem}") from None
    except RecursionError:
        raise UserError(f"{path}: nested deeper than {DEEPEST_NESTING} levels") from None
    except ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        raise UserError(
            f"{path}:{line}: character #x{problem.character:04x} is not allowed; remove it"
        ) from None
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path}:1: must be a mapping of keys such as `trial:`, but got no key")
    value: Block = _value(node, path, 1)
    return value


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema: 1e-3 is a number, `no` is text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own protocol

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: a page of them can grow without bound."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem=f"aliases (*{event.anchor}) are not allowed; write the value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as the same text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def write_yaml(value: Any) -> str:
    """JSON as YAML that `read_yaml` reads as the same; innermost blocks stand on a line."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        width=100,
        allow_unicode=True,
        default_flow_style=None,
    )
    return text


def _value(node: yaml.Node, path: Path, depth: int) -> Any:
    line = node.start_mark.line + 1
    if depth > DEEPEST_NESTING:
        raise UserError(f"{path}:{line}: nested deeper than {DEEPEST_NESTING} levels")
    if node.tag not in PLAIN:
        raise UserError(f"{path}:{line}: the tag {node.tag} is not allowed; write a plain value")
    if isinstance(node, yaml.MappingNode):
        pairs = list(_pairs(node, path))
        values = {key: _value(child, path, depth + 1) for key, _, child in pairs}
        return Block(values, {key: line for key, line, _ in pairs})
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, path, depth + 1) for child in node.value]
    return _scalar(node, path)


def _pairs(node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, int, yaml.Node]]:
    seen: dict[str, int] = {}
    for key_node, child in node.value:
        key, line = key_node.value, key_node.start_mark.line + 1
        if not isinstance(key, str) or not key:
            raise UserError(f"{path}:{line}: a key must be a word, but got an empty or nested one")
        if key in seen:
            raise UserError(
                f"{path}:{line}: duplicate key `{key}`, first on line {seen[key]}; keep one"
            )
        seen[key] = line
        yield key, line, child


def _scalar(node: yaml.Node, path: Path) -> Any:
    kind, text = node.tag.rpartition(":")[2], node.value
    try:
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        line = node.start_mark.line + 1
        raise UserError(f"{path}:{line}: {text[:40]!r} is not a number") from None
    return text
