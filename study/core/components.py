"""Parts of a trial are built here, and nowhere else, from what their settings name.

Needs no pydantic, so that settings may be any objects that name an `implementation`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def resolve(place: str) -> Any:
    """The class or function at a place such as "study.models.egnn:EGNN"."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def build(settings: Any, *arguments: Any) -> Any:
    """What settings describe: their implementation, called with them and with the arguments.

    Args:
        settings: with an `implementation`, the place of a class or function.
        arguments: of that, after the settings.
    """
    return resolve(settings.implementation)(settings, *arguments)
