"""Validation errors as lines that name file, line, key, rule and way out."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from study.space.distributions import HOLES
from study.space.yaml_loader import Block

KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list in brackets",
    "dict_type": "a block of keys",
    "model_type": "a block of keys",
    "model_attributes_type": "a block of keys",
    "finite_number": "a finite number",
}

RULES = {
    "greater_than": "> {gt}",
    "greater_than_equal": ">= {ge}",
    "less_than": "< {lt}",
    "less_than_equal": "<= {le}",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
    "string_too_short": "at least {min_length} letter long",
    "string_too_long": "at most {max_length} letters long",
}


Parsed = TypeVar("Parsed", bound=BaseModel)


def parse(
    kind: type[Parsed], value: Block, path: Path, place: tuple[str, ...], problems: list[str]
) -> Parsed | None:
    """The settings that a block says; None if it is wrong, with a line per problem added."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problems += explain(error, kind, value, path, place)
        return None


def explain(
    error: ValidationError, kind: type[BaseModel], value: Block, path: Path, place: tuple[str, ...]
) -> list[str]:
    """One line per problem.

    Args:
        error: what parsing `value` as `kind` raised.
        kind: the settings class.
        value: the block, with the lines of its keys.
        path: the file.
        place: keys above the block.
    """
    found = error.errors()
    misspelt = {
        (*details["loc"][:-1], *get_close_matches(str(details["loc"][-1]), known, n=1))
        for details in found
        if details["type"] == "extra_forbidden"
        for known in [_known_keys(details["loc"], kind)]
    }
    # A key that lacks because it is misspelt is answered once.
    once = (each for each in found if each["type"] != "missing" or each["loc"] not in misspelt)
    return [_line(details, kind, value, path, place) for details in once]


def _line(
    details: ErrorDetails, kind: type[BaseModel], value: Block, path: Path, place: tuple[str, ...]
) -> str:
    place_in = tuple(key for key in details["loc"] if not _is_tag(key))
    loc = (*place_in, *_mentioned(details))
    keys, line = _locate(loc, value)
    name = ".".join((*place, *keys)) or "the space"
    known = _known_keys(details["loc"], kind)
    return f"{path}:{line}: {name}: {_rule(details, known)}"


def _is_tag(key: int | str) -> bool:
    """Whether a part of a location is no key, but the kind of a block."""
    return isinstance(key, str) and key.startswith("<")


def _mentioned(details: ErrorDetails) -> tuple[str, ...]:
    """The first key in backticks, for rules between several keys."""
    found = re.match(r"`([\w.]+)", str(details.get("ctx", {}).get("error", "")))
    return tuple(found[1].split(".")) if found else ()


def _rule(details: ErrorDetails, known: list[str]) -> str:
    kind, context, got = details["type"], details.get("ctx", {}), details["input"]
    if kind == "missing":
        return "is required; add it"
    if kind == "extra_forbidden":
        return f"unknown key; {_nearest(str(details['loc'][-1]), known)}"
    if kind == "literal_error":
        allowed = [word.strip("' ") for word in _expected(context["expected"])]
        return f"must be one of {', '.join(allowed)}, but got {_shown(got)}{_maybe(got, allowed)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        allowed = [word.strip("' ") for word in _expected(context.get("expected_tags", ""))]
        if kind == "union_tag_not_found":
            return "needs a `name`" + (f": one of {', '.join(allowed)}" if any(allowed) else "")
        tag = context["tag"]
        return f"`name` must be one of {', '.join(allowed)}, but got {tag!r}{_maybe(tag, allowed)}"
    if kind == "value_error":
        return str(context["error"])
    if kind in KINDS and isinstance(got, Block) and KINDS[kind] != "a block of keys":
        return _no_distribution(KINDS[kind], got)
    if kind in KINDS:
        return f"must be {KINDS[kind]}, but got {_shown(got)}"
    if kind in RULES:
        return f"must be {RULES[kind].format(**context)}, but got {_shown(got)}"
    return f"{details['msg']}, but got {_shown(got)}"


def _no_distribution(wanted: str, got: Block) -> str:
    """What to write in the place of a block that is neither a value nor a distribution."""
    keys = list(got)
    near = _maybe(keys[0], [*HOLES]) if keys else ""
    return (
        f"must be {wanted}, or one of the distributions {', '.join(HOLES)}, but got a block of "
        f"{', '.join(f'`{key}`' for key in keys) or 'nothing'}{near}"
    )


def _expected(text: str) -> list[str]:
    return text.replace(" or ", ", ").split(", ")


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"


def _maybe(word: object, known: list[str]) -> str:
    near = get_close_matches(str(word), known, n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _shown(value: object) -> str:
    if isinstance(value, Block):
        return "a block of keys"
    text = "nothing" if value is None else repr(value)
    kind = " (text)" if isinstance(value, str) else ""
    return (text if len(text) <= 60 else f"{text[:57]}...") + kind


def _locate(loc: tuple[int | str, ...], value: Any) -> tuple[list[str], int]:
    """The keys of a location as the file has them, and the line of the last one there."""
    keys, line = [], 1
    for place, key in enumerate(loc):
        if isinstance(value, Block) and key in value:
            keys.append(str(key))
            line = value.lines.get(str(key), line)
            value = value[str(key)]
        elif isinstance(value, list) or (place == len(loc) - 1 and isinstance(value, Block)):
            keys.append(str(key))
    return keys, line


def _known_keys(loc: tuple[int | str, ...], kind: type[BaseModel]) -> list[str]:
    """The keys allowed beside the last key of a location."""
    owner: type[BaseModel] | None = kind
    options: list[type[BaseModel]] = []
    for key in loc[:-1]:
        tagged = [option for option in options if key in (_name_of(option), f"<{option.__name__}>")]
        if tagged:
            owner = tagged[0]
        elif owner is not None and key in owner.model_fields:
            options = _classes(owner.model_fields[str(key)].annotation)
            owner = options[0] if len(options) == 1 else None
    fields = owner.model_fields.items() if owner else ()
    return [info.alias or name for name, info in fields]


def _classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [found for inner in get_args(annotation) for found in _classes(inner)]
    return []


def _name_of(kind: type[BaseModel]) -> str | None:
    field = kind.model_fields.get("name")
    names = get_args(field.annotation) if field else ()
    return names[0] if names else None
