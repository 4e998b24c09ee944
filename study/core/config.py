"""The base of all settings: frozen, strict, nothing unknown."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, Tag


class Config(BaseModel):
    """Settings parsed once at the door: no unknown key, no silent conversion, no change later."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Plugin(Config):
    """What all settings classes of the user's own code derive from, by way of `study.plugins`."""


class Own(Config):
    """Settings of code of the user's own, as they are written down.

    The class in that code has checked them at the door (`study.plugins`); whoever only wants to
    know what was done reads them without running it.
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1, max_length=64)
    """Name of the settings class in the code."""
    code: str = Field(min_length=1)
    """A Python file, relative to the current folder, or the name of an installed module."""
    sha256: str | None = None
    """Of the code; filled in when left out."""

    @property
    def label(self) -> str:
        """The name with all settings that the code adds."""
        added = {
            name: value for name, value in (self.model_extra or {}).items() if value is not None
        }
        return " ".join([self.name, *(f"{name}={value}" for name, value in added.items())])


SHIPPED, OWN = Tag("<shipped>"), Tag("<own>")
"""Kinds of settings, in places where both may stand."""


def whose(value: Any) -> str:
    """Whether a block of settings is for code of this package or of the user's own."""
    own = "code" in value if isinstance(value, dict) else isinstance(value, Own)
    return (OWN if own else SHIPPED).tag
