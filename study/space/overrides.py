"""What is on top of a space's text: its folder, profiles, `--set trial.finetune.epochs=5`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from study.core.errors import UserError
from study.core.paths import NO_ADDRESS
from study.core.user_code import is_file
from study.space.distributions import HOLES, hole_of, overlaid, spread
from study.space.yaml_loader import NO_LINE, Block, as_block, read_value

NAMES_OF_FILES = {("dataset", "path"), ("pretrain", "from"), ("search", "learn_from")}
"""Keys below which a space names files or folders, beside `code`."""


def with_absolute_paths(content: Block, file: Path) -> Block:
    """The space with absolute names of the files that it names in relation to its own folder.

    They mean the same from wherever it is run or resumed. What a space may do with a block of the
    user's own code, beside `code`, is not known, so other names in it stay as they are.

    Args:
        content: of the file, or a part of it.
        file: the space.

    Raises:
        UserError: if a file lies in the current folder alone.
    """
    found: Block = _absolute(content, (), file, 1)
    return found


def _absolute(value: Any, place: tuple[str, ...], file: Path, line: int) -> Any:
    """A part of a space, below the keys of `place`, which are not those of holes."""
    if isinstance(value, list):
        return [_absolute(each, place, file, line) for each in value]
    if isinstance(value, Block):
        children = {
            name: _absolute(
                child, place if name in HOLES else (*place, name), file, value.lines[name]
            )
            for name, child in value.items()
            if not ("code" in value and name == "path")
        }
        return Block({**value, **children}, value.lines)
    if not isinstance(value, str):
        return value
    if "://" in value and place[-2:] == ("dataset", "path"):
        return value
    code = place[-1:] == ("code",) and is_file(value)
    study = place[-1:] == ("learn_from",) and "/" not in value and not value.endswith(".csv")
    if code or (place[-2:] in NAMES_OF_FILES and not study):
        return _beside(value, file, f"{file}:{line}: {'.'.join(place)}")
    return value


def _beside(name: str, file: Path, where: str) -> str:
    if "://" in name:
        raise UserError(f"{where}: {name}: {NO_ADDRESS}")
    if not name or name.startswith("~") or Path(name).is_absolute():
        return name
    folder = file.parent.resolve()
    path = os.path.normpath(folder / name)
    # Unlike those of `Path`, these answer for names that no file can have.
    if os.path.exists(path) or not os.path.exists(name):  # noqa: PTH110
        return path
    raise UserError(
        f"{where}: {name} is in the current folder, but names are relative to the space's folder, "
        f"{folder}; write {os.path.relpath(name, folder)}, or move one of them"
    )


def profiles_of(content: Block, path: Path) -> Block:
    """The profiles of a space by name; a nameless empty one if it has none.

    Raises:
        UserError: if they are no block.
    """
    profiles = content.get("profiles") or Block({}, {})
    if not isinstance(profiles, Block):
        raise UserError(f"{path}:{content.lines['profiles']}: profiles: must be a block of names")
    return profiles or Block({"": None}, {})


def chosen_profile(requested: str | None, default: str, profiles: Block, place: str) -> str:
    """The profile to run: the requested one, the default, or the only one there is.

    Raises:
        UserError: if there is no such profile.
    """
    if requested is None and len(profiles) == 1:
        return str(next(iter(profiles)))
    profile = default if requested is None else requested
    if profile in profiles:
        return profile
    if "" in profiles:
        raise UserError(f"{place}: has no profiles, so none is `{profile}`; leave out --profile")
    raise UserError(
        f"{place}: profiles: has no `{profile}`, only {', '.join(profiles)}; "
        "choose one of these with --profile"
    )


def with_profile(content: Block, profiles: Block, profile: str, path: Path) -> Block:
    """The space with what a profile says on top.

    Raises:
        UserError: if the profile is no block of changes.
    """
    overlay = profiles[profile] or Block({}, {})
    if not isinstance(overlay, Block):
        raise UserError(f"{path}:{profiles.lines[profile]}: profiles.{profile}: must be a block")
    if "profiles" in overlay:
        line = overlay.lines["profiles"]
        raise UserError(f"{path}:{line}: profiles.{profile}.profiles: a profile has no profiles")
    merged = overlaid(content, overlay)
    if "trial" in merged:
        merged["trial"] = spread(merged["trial"])
    return merged


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

    Raises:
        UserError: if a key is one of `trial`, without saying so.
    """
    for keys, value in changes:
        _require_not_below_trial(content, keys)
        content = _changed(content, keys, value, ".".join(keys))
    return content


def _require_not_below_trial(content: Block, keys: list[str]) -> None:
    trial = content.get("trial")
    if isinstance(trial, Block) and keys[0] in trial and keys[0] not in content:
        name = ".".join(keys)
        raise UserError(f"--set {name}: unknown key; did you mean `trial.{name}`?")


def with_trials(content: Block, trials: int, name: str) -> Block:
    """Replace a search's number of proposals.

    Args:
        content: of the space.
        trials: the number.
        name: of the space, as typed.

    Raises:
        UserError: if the space is a grid.
    """
    if not content.get("search"):
        raise UserError(
            f"--trials {trials}: {name} is a grid, whose choices and seeds say how many trials "
            "there are; leave the option out, or use --seeds"
        )
    return changed(content, [(["search", "trials"], trials)])


def _changed(block: Block, keys: list[str], value: Any, name: str) -> Block:
    hole = hole_of(block)
    if hole:
        return _changed_options(block, hole, keys, value, name)
    key, *inner_keys = keys
    if not inner_keys:
        return Block({**block, key: value}, block.lines | {key: NO_LINE})
    inner = block.get(key, Block({}, {}))
    if inner is None:
        return block
    if not isinstance(inner, Block):
        raise _no_such_key(name, inner_keys, inner)
    lines = {key: NO_LINE} | block.lines
    return Block({**block, key: _changed(inner, inner_keys, value, name)}, lines)


def _changed_options(
    block: Block, hole: tuple[str, Any], keys: list[str], value: Any, name: str
) -> Block:
    """Change every option of a choice that has keys at all."""
    kind, options = hole
    blocks = (
        kind == "choice"
        and isinstance(options, list)
        and any(isinstance(option, Block) for option in options)
    )
    if not blocks:
        raise _no_such_key(name, keys, dict(block))
    changed_options = [
        _changed(option, keys, value, name) if isinstance(option, Block) else option
        for option in options
    ]
    return Block({**block, "choice": changed_options}, block.lines)


def _no_such_key(name: str, inner: list[str], value: Any) -> UserError:
    above = name.removesuffix("." + ".".join(inner))
    return UserError(
        f"--set {name}: `{above}` is {value!r}, which has no keys below it; set `{above}` itself"
    )


def of_command_line(problems: Sequence[str], file: str) -> UserError:
    """Problems with values that were set there, which no line of the file has."""
    place = f"{file}:{NO_LINE}: "
    shown = [problem.replace(place, "--set ", 1) for problem in problems]
    return UserError(*shown)


def find_space(name: str, shipped: Path) -> Path:
    """The file of a space given by path or name.

    Args:
        name: path, or name of a shipped space.
        shipped: folder of these.

    Raises:
        UserError: naming the spaces there are.
    """
    given = Path(name)
    stem = given.name if given.suffix in (".yaml", ".yml") else f"{given.name}.yaml"
    for path in (given, shipped / stem if given.parent == Path() else given):
        if path.is_file():
            return path
    names = sorted(path.stem for path in shipped.glob("*.yaml"))
    near = get_close_matches(given.stem, names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"shipped spaces: {', '.join(names)}"
    raise UserError(f"{name}: no such file, and no such name in search_spaces/; {hint}")
