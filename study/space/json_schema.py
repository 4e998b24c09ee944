"""JSON Schema of search spaces, for editors: `python -m study.space.json_schema` writes it.

It is pydantic's schema of the settings classes, in which a distribution may take the place of any
value of a trial. Rules between keys, such as `min_lr <= lr` or how many frames a data set must
have, stay with the parser; what the schema refuses, the parser refuses, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from study.core.atomic_io import write_bytes
from study.core.paths import follow_links, path_of
from study.space.ranges import RANGES, Range
from study.space.search_space import SHIPPED
from study.space.settings import Settings
from study.space.trial import Trial

FILE = SHIPPED / "space.schema.json"

Schema = dict[str, Any]

DEFINITIONS = "#/definitions/"
LISTED = ".listed"
"""Suffix of a block in a list, where distributions do not reach."""
WHOLE = ".whole"
"""Suffix of a block with all keys that it needs; a part of one, which a profile or an option of a
choice completes, may lack them."""

DESCRIPTIONS = {
    "dataset": "The data set, by its name.",
    "split": "Which frames train, validate and test.",
    "model": "The network, by its name.",
    "task": "What the stage trains the model to do, by its name.",
    "resources": "What one trial takes of the machine.",
}
"""Descriptions of keys that hold one of several blocks."""


def space_schema() -> Schema:
    """The schema; draft 7, which every editor knows."""
    trial, settings = _sources(Trial), _sources(Settings)
    del trial["Trial"]["properties"]["seed"]  # A space has `seeds`, outside its trial.
    profiles = settings["Settings"]["properties"].pop("profiles")["description"]
    definitions = _blocks(trial, distributions=True) | _blocks(settings, distributions=False)
    top, complete = definitions["Settings"]["properties"], definitions.pop("Settings" + WHOLE)
    top["trial"] = {"description": top["trial"]["description"], **_all(_ref("Trial"))}
    complete["properties"]["trial"] = _unless_chosen(_ref("Trial" + WHOLE))
    del complete["allOf"]  # A part of the settings has no profiles.
    named = {"anyOf": [_ref("Settings"), {"type": "null"}]}
    block = {"type": "object", "minProperties": 1, "additionalProperties": named}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Search space of a pretraining study",
        "type": "object",
        "properties": {key: _ref(f"Settings/properties/{key}") for key in top}
        | {"profiles": {"description": profiles, **block}},
        "additionalProperties": False,
        # An empty profile is the file itself, which must be whole then.
        "if": {"properties": {"profiles": {"not": {"additionalProperties": {"type": "object"}}}}},
        "then": complete,
        "definitions": dict(sorted(definitions.items())),
    }


def _sources(kind: type[Trial | Settings]) -> dict[str, Schema]:
    """What pydantic makes of a class and all that it holds, with every key described."""
    made = kind.model_json_schema(ref_template=f"{DEFINITIONS}{{model}}{LISTED}")
    sources: dict[str, Schema] = made.pop("$defs", {}) | {kind.__name__: made}
    for source in sources.values():
        source["description"] = " ".join(source["description"].split())
        for key, field in source["properties"].items():
            usual = source["description"] if key == "name" else DESCRIPTIONS.get(key, "")
            field["description"] = " ".join(field.get("description", usual).split())
            field.pop("title", None)
    return sources


def _blocks(sources: dict[str, Schema], *, distributions: bool) -> dict[str, Schema]:
    """Definitions of all blocks, and of the values in them that have distributions."""
    definitions: dict[str, Schema] = {}
    shared: dict[str, str] = {}
    for name, source in sources.items():
        properties = {
            key: _open(field, f"{name}.{key}", definitions, shared)
            if distributions and "const" not in field
            else _described(
                field, [{"const": field["const"]}] if "const" in field else _kinds(field)
            )
            for key, field in source["properties"].items()
        }
        if distributions:
            family = _family(name, sources)
            properties["choice"] = _ref(f"{family[0]}.choice")
            definitions[f"{family[0]}.choice"] = {
                "description": "Each of these in turn is laid over the other keys of the block.",
                **_list({"anyOf": [*map(_ref, family), {"type": "null"}]}, minItems=1),
            }
        definitions[name] = _object(properties) | {"description": source["description"]}
        if "code" in properties:  # Of the user's own code, which has keys that only it knows.
            definitions[name] |= {"additionalProperties": True, "required": ["code"]}
        elif source.get("additionalProperties"):  # Of Optuna, with options that only it knows.
            definitions[name] |= {"additionalProperties": True, "required": ["name"]}
        definitions[name + WHOLE] = _whole(name, source)
    waiting = [each for source in sources.values() for each in _listed(source)]
    while waiting:
        if (name := waiting.pop()) + LISTED not in definitions:
            definitions[name + LISTED] = sources[name]
            fields = sources[name]["properties"].values()
            waiting += [each for field in fields for each in _names(field)]
    return definitions


def _open(
    field: Schema, name: str, definitions: dict[str, Schema], shared: dict[str, str]
) -> Schema:
    """A field that takes a value, or a distribution of values; equal kinds share a definition."""
    kinds = _kinds(field)
    name = shared.setdefault(json.dumps(kinds), name)
    choice = {"description": "Each of these values in turn.", **_list(_ref(name), minItems=1)}
    ranges = [each for kind in kinds for each in _ranges(kind).items()]
    distribution = _object({"choice": choice, **dict(ranges)}) | {"minProperties": 1}
    definitions[name] = {"anyOf": [*kinds, {**distribution, "maxProperties": 1}]}
    return _described(field, [_ref(name)])


def _ranges(kind: Schema) -> dict[str, Schema]:
    """Ranges that a search may draw a number from, if the value is one."""
    if kind.get("type") not in ("integer", "number"):
        return {}
    whole = kind["type"] == "integer"
    return {
        name: {"description": f"{spec.form}: {spec.draws}.", **_numbers(kind, spec)}
        for name, spec in RANGES.items()
        if spec.whole or not whole
    }


def _numbers(kind: Schema, spec: Range) -> Schema:
    """The list of numbers of a range, whose ends must be values that the field may have."""
    number: Schema = {"type": "integer" if spec.whole else "number"}
    positive = number | {"exclusiveMinimum": 0}
    low = number if spec.normal else _all(kind, positive if spec.log else number)
    items = [low, positive if spec.normal else low, *[positive] * spec.step]
    return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}


def _whole(name: str, source: Schema) -> Schema:
    """A block with all keys that it needs, and the same within it."""
    inner = {
        key: _unless_chosen({"anyOf": [_ref(each + WHOLE) for each in names]})
        for key, field in source["properties"].items()
        if (names := _names(field))
    }
    return _all(_ref(name)) | {"required": source.get("required", []), "properties": inner}


def _unless_chosen(schema: Schema) -> Schema:
    """Of a block without options that complete it; whatever is no block is let pass."""
    return {"if": {"required": ["choice"]}, "else": schema}


def _family(name: str, sources: dict[str, Schema]) -> list[str]:
    """All blocks that can take the place of a block."""
    unions = [_names(field) for each in sources.values() for field in each["properties"].values()]
    return max((union for union in unions if name in union), key=len, default=[name])


def _options(field: Schema) -> list[Schema]:
    """The kinds that a value may have, as pydantic describes them."""
    kinds: list[Schema] | None = field.get("oneOf") or field.get("anyOf")
    return [field] if kinds is None else [inner for kind in kinds for inner in _options(kind)]


def _kinds(field: Schema) -> list[Schema]:
    """The kinds that a value may have; blocks by their definition."""
    notes = ("description", "default", "discriminator")
    return [
        _ref(_name(option))
        if "$ref" in option
        else {key: value for key, value in option.items() if key not in notes}
        for option in _options(field)
    ]


def _names(field: Schema) -> list[str]:
    """The blocks that may stand in a field."""
    return [_name(option) for option in _options(field) if "$ref" in option]


def _listed(source: Schema) -> list[str]:
    """The blocks in lists of a block."""
    items = [field.get("items", {}) for field in source["properties"].values()]
    return [_name(item) for item in items if "$ref" in item]


def _name(option: Schema) -> str:
    return str(option["$ref"]).removeprefix(DEFINITIONS).removesuffix(LISTED)


def _described(field: Schema, kinds: list[Schema]) -> Schema:
    notes = {key: field[key] for key in ("description", "default") if key in field}
    return notes | ({"anyOf": kinds} if len(kinds) > 1 or "$ref" in kinds[0] else kinds[0])


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _all(*schemas: Schema) -> Schema:
    return {"allOf": list(schemas)}


def _ref(name: str) -> Schema:
    return {"$ref": DEFINITIONS + name}


def text() -> str:
    """The schema as it is committed: a line for each definition."""
    schema = space_schema()
    lines = [
        f"  {json.dumps(name)}: {json.dumps(each, ensure_ascii=False)}"
        for name, each in schema.pop("definitions").items()
    ]
    head = json.dumps(schema, indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{head},\n "definitions": {{\n' + ",\n".join(lines) + "\n }\n}\n"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m study.space.json_schema", description=__doc__)
    made.add_argument("--out", type=path_of, default=FILE, help=f"default: {FILE.name} with spaces")
    made.add_argument("--check", action="store_true", help="write nothing; 1 if it is outdated")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Write the schema, or say that the file is not what it would be."""
    chosen = parser().parse_args(arguments)
    if not chosen.check:
        write_bytes(follow_links(chosen.out), text().encode())
        return 0
    current = chosen.out.is_file() and chosen.out.read_text() == text()
    if not current:
        sys.stderr.write(f"{chosen.out}: outdated; run `python -m study.space.json_schema`\n")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
