"""Changes to a space from the command line, such as `--set trial.finetune.epochs=5`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from study.core.errors import UserError
from study.space.distributions import hole_of
from study.space.yaml_loader import NO_LINE, Block, as_block, read_value


def parse_change(text: str) -> tuple[list[str], Any]:
    """Keys and value of `key.key=value`; the value is YAML.

    Raises:
        UserError: if it is not of that form, or touches what is no setting.
    """
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {text}: must be key=value, such as trial.finetune.epochs=5")
    if keys[0] == "profiles":
        raise UserError(f"--set {text}: profiles are chosen with --profile; set the key itself")
    return keys, as_block(read_value(value, f"--set {name}"))


def changed(content: Block, changes: Sequence[tuple[list[str], Any]]) -> Block:
    """The space with each value in place of what stands at its keys, in every option of a choice.

    Blocks that are switched off by `null`, such as `pretrain` of an arm from scratch, stay off.
    """
    for keys, value in changes:
        content = _changed(content, keys, value)
    return content


def _changed(block: Block, keys: list[str], value: Any) -> Block:
    if hole_of(block):
        options = [
            _changed(option, keys, value) if isinstance(option, Block) else option
            for option in block.get("choice", [])
        ]
        return Block({**block, "choice": options}, block.lines)
    key, *inner_keys = keys
    if not inner_keys:
        return Block({**block, key: value}, block.lines | {key: NO_LINE})
    inner = block.get(key, Block({}, {}))
    if not isinstance(inner, Block):
        return block
    lines = {key: NO_LINE} | block.lines
    return Block({**block, key: _changed(inner, inner_keys, value)}, lines)


def of_command_line(problems: Sequence[str], file: str) -> UserError:
    """Problems with values that were set there, which no line of the file has."""
    place = f"{file}:{NO_LINE}: "
    shown = [problem.replace(place, "--set ", 1) for problem in problems]
    return UserError(*shown)
