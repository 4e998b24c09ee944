"""JSON Schema of search spaces, for editors: `python -m study.space.json_schema` writes it.

It is made from the settings classes. Rules between keys, such as `min_lr <= lr` or how many frames
a data set must have, stay with the parser; what the schema refuses, the parser refuses, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from study.core.atomic_io import write_bytes
from study.space.search_space import SHIPPED
from study.space.settings import Settings
from study.space.trial import Trial

FILE = SHIPPED / "space.schema.json"
HEAD = f"# yaml-language-server: $schema={FILE.name}"
"""First line of a space beside the schema."""

Schema = dict[str, Any]

PART = ".part"
"""Suffix of a block that need not be whole: a profile or another option completes it."""
NOT_IN_A_SPACE = {"Trial": {"seed"}}
"""Keys of a class that stand elsewhere in a space."""


def space_schema() -> Schema:
    """The schema; draft 7, which every editor knows."""
    blocks = _Blocks()
    trial, settings = blocks.add(Trial, holes=True), blocks.add(Settings, holes=False)
    whole = blocks.definitions[settings]["properties"]
    parts = blocks.definitions[settings + PART]["properties"]
    for properties, kind in ((whole, trial), (parts, trial + PART)):
        described = properties["trial"]["description"]
        properties["trial"] = {"description": described, "allOf": [_ref(kind)]}
    profiles = parts.pop("profiles")["description"]
    whole["profiles"] = {
        "description": profiles,
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"anyOf": [_ref(settings + PART), {"type": "null"}]},
    }
    del blocks.definitions[settings]["required"]
    complete = {"properties": {"trial": _ref(trial)}, "required": ["question", "seeds", "trial"]}
    whole["trial"] = {**whole["trial"], "allOf": [_ref(trial + PART)]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Search space of a pretraining study",
        **blocks.definitions.pop(settings),
        "required": ["profiles"],
        # An empty profile is the file itself, which must be whole then.
        "if": {"properties": {"profiles": {"not": {"additionalProperties": {"type": "object"}}}}},
        "then": complete,
        "definitions": dict(sorted(blocks.definitions.items())),
    }


class _Blocks:
    """Definitions of all blocks of keys, each whole and in part."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def add(self, kind: type[BaseModel], *, holes: bool) -> str:
        """Define a class and all that it holds.

        Returns:
            Its name; with `PART` the name of its parts.
        """
        made = kind.model_json_schema(ref_template="{model}")
        sources = made.pop("$defs", {}) | {kind.__name__: made}
        in_lists = _in_lists(sources)
        families = _families(sources)
        for name, source in sources.items():
            family = families.get(name, [name])
            if name in in_lists:
                self.definitions[f"{name}.listed"] = _plain(source)
            self.definitions[name] = self._block(name, source, family, holes=holes, whole=True)
            self.definitions[name + PART] = self._block(
                name, source, family, holes=holes, whole=False
            )
        return kind.__name__

    def _block(
        self, name: str, source: Schema, family: list[str], *, holes: bool, whole: bool
    ) -> Schema:
        properties = {
            key: self._field(name, key, field, source, holes=holes, whole=whole)
            for key, field in source["properties"].items()
            if key not in NOT_IN_A_SPACE.get(name, ())
        }
        block: Schema = {
            "description": _one_line(source["description"]),
            "type": "object",
            "properties": properties,
            # Own code has keys that only it knows, but is always named.
            "additionalProperties": "code" in properties,
        }
        if "code" in properties:
            block["required"] = ["code"]
        if whole:
            block["required"] = source.get("required", [])
            if not holes:
                return block
            open_block = {"allOf": [_ref(name + PART)], "required": ["choice"]}
            return {"description": block["description"], "anyOf": [block, open_block]}
        if holes:
            options = {"anyOf": [_ref(member + PART) for member in family]}
            properties["choice"] = {
                "description": "Each of these in turn is laid over the other keys of the block.",
                "type": "array",
                "minItems": 1,
                "items": options,
            }
        return block

    def _field(
        self, owner: str, key: str, field: Schema, source: Schema, *, holes: bool, whole: bool
    ) -> Schema:
        """The schema of a value, or of a hole in its place."""
        described = _description(owner, key, field, source)
        named = [_named(option) for option in _options(field)]
        suffix = "" if whole else PART
        plain = [
            _ref(reference + suffix) if reference else _without_notes(option)
            for reference, option in zip(named, _options(field), strict=True)
        ]
        default = {"default": field["default"]} if "default" in field else {}
        if not holes or "const" in field:
            return {"description": described, **default, "anyOf": plain}
        own = f"{owner}.{key}" + suffix * any(named)
        self.definitions[own] = {
            "description": described,
            **default,
            "anyOf": [*plain, _choice(_ref(own)), *_ranges(plain)],
        }
        return _ref(own)


def _choice(option: Schema) -> Schema:
    return _hole("choice", "Each of these values in turn.", {"minItems": 1, "items": option})


def _ranges(plain: list[Schema]) -> list[Schema]:
    """Ranges that a search may draw a number from, if the value is one."""
    found = []
    for kind in plain:
        pair = {"minItems": 2, "maxItems": 2}
        if kind.get("type") == "number":
            positive = {"allOf": [kind, {"exclusiveMinimum": 0}]}
            found.append(_hole("uniform", "Any number between these two.", pair | {"items": kind}))
            found.append(
                _hole("loguniform", "The same, even in its logarithm.", pair | {"items": positive})
            )
        if kind.get("type") in ("number", "integer"):
            whole = {"allOf": [kind, {"type": "integer"}]}
            found.append(
                _hole("integer", "Any whole number from one to the other.", pair | {"items": whole})
            )
    return found


def _hole(key: str, description: str, content: Schema) -> Schema:
    value = {"description": description, "type": "array", **content}
    return {
        "type": "object",
        "properties": {key: value},
        "required": [key],
        "additionalProperties": False,
    }


def _plain(source: Schema) -> Schema:
    """A block in a list, where holes do not reach."""
    properties = {
        key: {
            "description": _description("", key, field, source),
            "anyOf": [
                _ref(f"{_named(option)}.listed") if _named(option) else _without_notes(option)
                for option in _options(field)
            ],
        }
        for key, field in source["properties"].items()
    }
    return {
        "description": _one_line(source["description"]),
        "type": "object",
        "properties": properties,
        "required": source.get("required", []),
        "additionalProperties": False,
    }


def _description(owner: str, key: str, field: Schema, source: Schema) -> str:
    """Of a key; what has none of its own is described by the block that it holds, or names."""
    if "description" in field:
        return _one_line(field["description"])
    if key == "name":
        return _one_line(source["description"])
    return DESCRIPTIONS.get(f"{owner}.{key}") or DESCRIPTIONS[key]


DESCRIPTIONS = {
    "dataset": "The data set, by its name.",
    "split": "Which frames train, validate and test.",
    "model": "The network, by its name.",
    "task": "What the stage trains the model to do, by its name.",
    "Settings.resources": "What one trial takes of the machine.",
}
"""Of keys that hold one of several blocks."""


def _options(field: Schema) -> list[Schema]:
    """The kinds that a value may have."""
    kinds: list[Schema] | None = field.get("oneOf") or field.get("anyOf")
    return [field] if kinds is None else [inner for kind in kinds for inner in _options(kind)]


def _named(option: Schema) -> str:
    """The block that an option refers to, or nothing."""
    return str(option.get("$ref", ""))


def _families(sources: dict[str, Schema]) -> dict[str, list[str]]:
    """For each block all blocks that can take its place."""
    families: dict[str, list[str]] = {}
    for source in sources.values():
        for field in source["properties"].values():
            names = [name for name in map(_named, _options(field)) if name]
            for name in names:
                if len(names) > len(families.get(name, [])):
                    families[name] = names
    return families


def _in_lists(sources: dict[str, Schema]) -> set[str]:
    """Blocks within lists, and those within them."""
    found: set[str] = set()
    waiting = [
        str(field["items"]["$ref"])
        for source in sources.values()
        for field in source["properties"].values()
        if "$ref" in field.get("items", {})
    ]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            fields = sources[name]["properties"].values()
            waiting += [
                inner for field in fields for inner in map(_named, _options(field)) if inner
            ]
    return found


def _without_notes(option: Schema) -> Schema:
    """What a value must be, without title, description and default."""
    kept = {
        key: value
        for key, value in option.items()
        if key not in ("title", "description", "default", "discriminator")
    }
    if "$ref" in kept.get("items", {}):
        kept["items"] = _ref(f"{kept['items']['$ref']}.listed")
    return kept


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def text() -> str:
    """The schema as it is committed."""
    return json.dumps(space_schema(), indent=1, ensure_ascii=False) + "\n"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m study.space.json_schema", description=__doc__)
    made.add_argument("--out", type=Path, default=FILE, help=f"default: {FILE.name} with spaces")
    made.add_argument("--check", action="store_true", help="write nothing; 1 if it is outdated")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Write the schema, or say that the file is not what it would be."""
    chosen = parser().parse_args(arguments)
    if not chosen.check:
        write_bytes(chosen.out, text().encode())
        return 0
    current = chosen.out.is_file() and chosen.out.read_text() == text()
    if not current:
        sys.stderr.write(f"{chosen.out}: outdated; run `python -m study.space.json_schema`\n")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
