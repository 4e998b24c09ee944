"""Settings without pydantic, as a machine with torch alone reads them."""

from __future__ import annotations

from typing import Any

from study.core.config import Component, Config


def with_implementations(value: object) -> Any:
    """Settings as JSON, each with the place of what it builds."""
    if isinstance(value, list):
        return [with_implementations(each) for each in value]
    if not isinstance(value, Config):
        return value
    named = {"implementation": value.implementation} if isinstance(value, Component) else {}
    return named | {name: with_implementations(field) for name, field in value}
