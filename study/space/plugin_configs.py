"""Settings of the user's own code: completed and checked at the door, brought to life by workers.

In between they are plain data (`study.core.config.Own`), which nobody needs that code to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from study.core.atomic_io import write_bytes
from study.core.config import Own, shipped
from study.core.errors import UserError
from study.core.trust import accept, is_accepted, refusal
from study.core.user_code import (
    Kind,
    find,
    is_file,
    kept_file,
    load,
    typed,
)
from study.datasets.config import DatasetConfig
from study.models.config import ModelConfig
from study.space.distributions import HOLES, hole_of
from study.space.search.samplers import (
    AnySampler,
    OwnSampler,
    SamplerConfig,
    as_config,
)
from study.space.validation_errors import explain
from study.space.yaml_loader import NO_LINE, Block, as_block
from study.tasks.base_config import MetricConfig
from study.tasks.config import TaskConfig

KINDS: dict[str, Kind] = {
    "model": ModelConfig,
    "task": TaskConfig,
    "dataset": DatasetConfig,
    "sampler": SamplerConfig,
    "metrics": MetricConfig,
}
"""By the key that their settings stand at."""

SHIPPED = {name for base in KINDS.values() for name in shipped(base)}
"""Names that are taken."""

ENTRY_POINTS = "pretraining_study"
"""Group in which an installed package names its modules, by the names of their classes."""

Parsed = TypeVar("Parsed", bound=BaseModel)


def completed(value: Any, file: Path, place: Sequence[str] = ()) -> Any:
    """A trial with holes whose own blocks have their code's hash and all its defaults.

    Args:
        value: a part of it.
        file: the space.
        place: the keys above.

    Raises:
        UserError: if code cannot be run, has no such class, or is not that of the hash.
    """
    if isinstance(value, list):
        return [completed(each, file, place) for each in value]
    if not isinstance(value, Block):
        return value
    children = {
        key: completed(child, file, place if key in HOLES else (*place, key))
        for key, child in value.items()
    }
    block = Block(children, value.lines)
    base = KINDS.get(place[-1]) if place else None
    return block if base is None else _completed(_named(block), base, file, ".".join(place))


def _named(block: Block) -> Block:
    """The block with the code that an installed package gives its name."""
    if "code" in block or not isinstance(block.get("name"), str):
        return block
    for point in entry_points(group=ENTRY_POINTS, name=block["name"]):
        return Block({**block, "code": point.value}, block.lines | {"code": block.lines["name"]})
    return block


def _completed(block: Block, base: Kind, file: Path, place: str) -> Block:
    code, name = block.get("code"), block.get("name")
    if hole_of(code) or (code and hole_of(name)):
        raise UserError(
            f"{file}:{block.lines['code']}: {place}.code: code and name are no holes; make a "
            "choice of whole blocks, {choice: [{name: ..., code: ...}, ...]}"
        )
    if not isinstance(code, str) or not isinstance(name, str):
        return block
    where = f"{file}:{block.lines['code']}: {place}.code: "
    try:
        kind, sha256 = find(code, name, base, taken=SHIPPED), load(code)[1]
    except UserError as error:
        raise UserError(*(where + problem for problem in error.problems)) from None
    if block.get("sha256", sha256) != sha256:
        raise UserError(f"{where}{code} has the SHA-256 {sha256}, not that which the space says")
    defaults = {
        field: as_block(to_jsonable_python(info.get_default(call_default_factory=True)))
        for field, info in kind.model_fields.items()
        if not info.is_required() and field not in block
    }
    added = {"sha256": sha256, **defaults}
    return Block({**block, **added}, dict.fromkeys(added, NO_LINE) | block.lines)


def problems(value: Any, file: Path, place: tuple[str, ...]) -> list[str]:
    """What the classes of own blocks say against a trial whose holes are filled; one line each."""
    if isinstance(value, list):
        return [line for each in value for line in problems(each, file, place)]
    if not isinstance(value, Block):
        return []
    found = [line for key in value for line in problems(value[key], file, (*place, key))]
    if place[-1] in KINDS and {"code", "sha256", "name"} <= value.keys():
        kind = find(value["code"], value["name"], KINDS[place[-1]], taken=SHIPPED)
        given = {key: child for key, child in value.items() if key not in ("code", "sha256")}
        try:
            kind.model_validate(given)
        except ValidationError as error:
            found += explain(error, kind, Block(given, value.lines), file, place)
    return found


def blocks(value: Any) -> Iterator[dict[str, Any]]:
    """All own blocks in JSON settings."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        if {"code", "sha256"} <= value.keys():
            yield value
        for child in value.values():
            yield from blocks(child)


def keep(settings: Any, root: Path, kept_in: Path | None = None) -> None:
    """Put the files that settings name beside the results, where every worker finds them.

    Args:
        settings: JSON.
        root: folder of all work.
        kept_in: folder of all work that has them already.
    """
    for block in blocks(settings):
        kept = kept_file(block["sha256"], root)
        source = kept_file(block["sha256"], kept_in) if kept_in else Path(block["code"])
        if is_file(block["code"]) and not kept.exists():
            write_bytes(kept, source.read_bytes())


MayRun = Callable[[str, str], bool]
"""Whether code may run, by its place and SHA-256."""


def accept_code(settings: Any, root: Path, may_run: MayRun) -> None:
    """Decide on the code that settings among results name, before it is run.

    Args:
        settings: JSON.
        root: folder of all work, or of one model.
        may_run: asked of code that this user has not accepted before.

    Raises:
        UserError: if the answer is no.
    """
    for block in blocks(settings):
        sha256 = str(block["sha256"])
        kept = kept_file(sha256, root)
        code = str(kept) if kept.exists() else str(block["code"])
        if not is_accepted(sha256) and not may_run(code, sha256):
            raise refusal(code, sha256)
        accept(sha256, code)


def realized(settings: Parsed, root: Path) -> Parsed:
    """Settings with the classes of the user's code, whose `build` can be called.

    Args:
        settings: a trial or a part of it.
        root: folder of all work.

    Raises:
        UserError: if the code is not there as it was.
    """
    changed = {
        name: new for name, value in settings if (new := _realized(name, value, root)) is not value
    }
    return settings.model_copy(update=changed) if changed else settings


def realized_sampler(settings: AnySampler, root: Path) -> SamplerConfig:
    """The settings of a sampler, whose `build` can be called; see `realized`."""
    if not isinstance(settings, OwnSampler):
        shipped = as_config(settings)
        assert isinstance(shipped, SamplerConfig)  # No class of Optuna proposes what `pbt` does.
        return shipped
    config: SamplerConfig = typed(settings, SamplerConfig, root)
    return config


def _realized(name: str, value: Any, root: Path) -> Any:
    if isinstance(value, Own):
        return typed(value, KINDS[name], root)
    if isinstance(value, BaseModel):
        return realized(value, root)
    if isinstance(value, list):
        new = [_realized(name, each, root) for each in value]
        return new if any(a is not b for a, b in zip(new, value, strict=True)) else value
    return value
