"""The base of all settings: frozen, strict, nothing unknown; and of those that build a part."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from study.core.components import build

PACKAGE = __name__.partition(".")[0]


class Config(BaseModel):
    """Settings validated once, at load time: no unknown key, no silent conversion, no change."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Component(Config):
    """Settings of a part of a study, shipped or the user's own, that `build` makes.

    A class of its own has a `name: Literal["..."]`, by which spaces call it, and either an
    `implementation` or a `build`. Nothing here imports torch; an implementation is imported when
    it is built.
    """

    implementation: ClassVar[str] = ""
    """What `build` calls with the settings, such as "study.models.egnn:EGNN"."""

    name: str

    def build(self, *arguments: Any) -> Any:
        """What the settings describe."""
        return build(self, *arguments)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        if cls.__module__.partition(".")[0] == PACKAGE and cls.space_name():
            COMPONENTS.append(cls)

    @classmethod
    def space_name(cls) -> str:
        """The name by which spaces call it; empty for a class that is only a base of others."""
        names = get_args(cls.model_fields["name"].annotation)
        return str(names[0]) if names else ""


COMPONENTS: list[type[Component]] = []
"""All of this package, in the order of their classes."""


class Own(Config):
    """Settings of code of the user's own, as they are written down.

    The class in that code has checked them at load time (`study.plugins`); whoever only wants to
    know what was done reads them without running it.
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1, max_length=64)
    """Name of the settings class in the code."""
    code: str = Field(min_length=1)
    """A Python file, relative to the space's folder, or the name of an installed module."""
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

Kind = TypeVar("Kind", bound=Component)


def whose(value: Any) -> str:
    """Whether a block of settings is for code of this package or of the user's own."""
    own = "code" in value if isinstance(value, dict) else isinstance(value, Own)
    return (OWN if own else SHIPPED).tag


def shipped(base: type[Kind]) -> dict[str, type[Kind]]:
    """The components of this package that derive from a base, by name, in their order so far."""
    return {kind.space_name(): kind for kind in COMPONENTS if issubclass(kind, base)}


def any_of(base: type[Component], own: type[Own]) -> Any:
    """The type of a field that takes each shipped component of a kind, or one of the user's own."""
    annotated: Any = Annotated  # Types made at run time are none that mypy could read.
    kinds = annotated[Union[tuple(shipped(base).values())], Field(discriminator="name")]  # noqa: UP007
    either = Union[annotated[kinds, SHIPPED], annotated[own, OWN]]  # noqa: UP007
    return annotated[either, Discriminator(whose)]
