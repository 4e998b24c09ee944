"""Finished work that the trials of a space start from, `pretrain: {from: ...}`.

Nothing here imports torch, so that a bad one is answered at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from study.core.errors import UserError
from study.core.hashing import without_places
from study.core.paths import real_path
from study.core.records import RESULT, load_result
from study.models.packages.foundation import FoundationFile, read_foundation
from study.space.distributions import HOLES, hole_of
from study.space.trial import Trial
from study.space.yaml_loader import NO_LINE, Block


def with_hashes(value: Any, file: Path, place: tuple[str, ...] = ("trial",)) -> Any:
    """A trial with holes in which every `pretrain: {from: ...}` has the hash of its weights.

    Args:
        value: a part of it.
        file: the space.
        place: the keys above.

    Raises:
        UserError: if there are no weights, or not those of the hash that the space says.
    """
    if isinstance(value, list):
        return [with_hashes(each, file, place) for each in value]
    if not isinstance(value, Block):
        return value
    if place == ("trial", "pretrain") and "from" in value:
        return _with_hash(value, file)
    if place not in (("trial",), ("trial", "pretrain")):
        return value
    children = {
        key: with_hashes(child, file, place if key in HOLES else (*place, key))
        for key, child in value.items()
    }
    return Block(children, value.lines)


def _with_hash(block: Block, file: Path) -> Block:
    where = f"{file}:{block.lines['from']}: trial.pretrain.from: "
    if hole_of(block["from"]):
        raise UserError(
            f"{where}is no hole; make a choice of whole blocks, "
            "{choice: [{from: ...}, {from: ...}]}"
        )
    if not isinstance(block["from"], str):
        return block
    try:
        start = find_start(block["from"])
    except UserError as error:
        raise UserError(*(where + problem for problem in error.problems)) from None
    if block.get("sha256", start.sha256) != start.sha256:
        raise UserError(
            f"{where}the weights of {block['from']} have the SHA-256 {start.sha256}, not that "
            "which the space says"
        )
    made = start.foundation.package if start.foundation else None
    if made != block.get("package"):
        said = f"package: {made}" if made else "no package"
        raise UserError(f"{where}needs {said}, but got {block.get('package')}")
    # A worker has another current folder, perhaps.
    known = {"from": str(start.folder), "sha256": start.sha256}
    if start.foundation:
        known["trained_on"] = block.get("trained_on") or start.foundation.trained_on
    return Block({**block, **known}, dict.fromkeys(known, NO_LINE) | block.lines)


def with_foundations(trial: Any) -> Any:
    """A trial with holes in which models have the settings of the foundation model they start from.

    What a space says itself stays, and is refused later if it is not the same. With several
    foundation models of one name it has to say all that they do not share.
    """
    found = [_model_of(place) for place in _foundations(trial)]
    models: dict[str, dict[str, Any]] = {}
    for model in found:
        known = models.setdefault(model["name"], model)
        models[model["name"]] = {
            key: value for key, value in known.items() if model.get(key, ...) == value
        }
    return _filled(trial, models) if models else trial


def _foundations(value: Any) -> Iterator[str]:
    """Files of the foundation models that a part of a trial names."""
    if isinstance(value, list):
        for each in value:
            yield from _foundations(each)
    elif isinstance(value, Block):
        if {"from", "package"} <= value.keys():
            yield str(value["from"])
        for each in value.values():
            yield from _foundations(each)


def _model_of(place: str) -> dict[str, Any]:
    return read_foundation(Path(place)).model


def _filled(value: Any, models: dict[str, dict[str, Any]], place: str = "") -> Any:
    if isinstance(value, list):
        return [_filled(each, models, place) for each in value]
    if not isinstance(value, Block):
        return value
    children = {
        key: _filled(child, models, place if key in HOLES else key) for key, child in value.items()
    }
    name = value.get("name")
    known = models.get(name, {}) if place == "model" and isinstance(name, str) else {}
    added = {key: setting for key, setting in known.items() if key not in children}
    return Block({**children, **added}, dict.fromkeys(added, NO_LINE) | value.lines)


def problems_of_starts(trials: Sequence[Trial]) -> Iterator[str]:
    """What speaks against the weights that trials start from; a line each."""
    starts: dict[str, Start] = {}
    for trial in trials:
        if trial.start is None:
            continue
        place = trial.start.place
        start = starts.setdefault(place, find_start(place))
        here = without_places(trial.model.model_dump(mode="json"))
        there = without_places(start.settings["model"])
        unlike = [key for key in {**here, **there} if here.get(key) != there.get(key)]
        if unlike:
            told = " and ".join(
                f"{key} {here.get(key)} against {there.get(key)}" for key in unlike[:4]
            )
            yield (
                f"`trial.model` must be that of {place}, but differs: {told}; set the same, or "
                "name other work"
            )
        dataset = without_places(trial.dataset.model_dump(mode="json"))
        if start.labelled and dataset == without_places(start.settings["dataset"]):
            yield (
                f"{place} has learned the labels of `trial.dataset`, perhaps of test frames; name "
                "a pretraining, or work on other data"
            )


def remarks_on_starts(trials: Sequence[Trial], seeds: Sequence[int]) -> Iterator[str]:
    """Which weights that trials start from may have seen frames that are tested; a line each.

    Args:
        trials: of a space, with any seed.
        seeds: of the space.
    """
    starts: dict[str, Start] = {}
    for trial in trials:
        if trial.start:
            place = trial.start.place
            start = starts.setdefault(place, find_start(place))
            if seen := _seen(start, trial, seeds):
                yield f"{trial.start.name} {seen}"


def _seen(start: Start, trial: Trial, seeds: Sequence[int]) -> str:
    """What test frames a pretraining may have seen, in words; empty if it has seen none."""
    settings = start.settings
    if start.foundation:
        told = trial.foundation.trained_on if trial.foundation else ""
        learned = f"has learned {told}" if told else "does not tell what it has learned"
        return f"{learned}; frames that are tested may be among it, with their labels"
    if "dataset" not in settings:
        return "does not tell which frames it has seen; some may be test frames"
    if _nameless(settings["dataset"]) != _nameless(trial.dataset.model_dump(mode="json")):
        return ""
    if settings["split"] != trial.split.model_dump(mode="json"):
        return "was split otherwise and may have seen, without labels, frames that are tested"
    others = [f"{seed}" for seed in seeds if seed != settings["seed"]]
    if not others or trial.split.by == "published":
        return ""
    tested = f"seed {others[0]} tests" if len(others) == 1 else f"seeds {', '.join(others)} test"
    return (
        f"was split with seed {settings['seed']} and may have seen, without labels, what {tested}"
    )


def _nameless(dataset: dict[str, Any]) -> dict[str, Any]:
    """Settings of a data set, in whatever folder it lies."""
    settings: dict[str, Any] = without_places(dataset)
    path = settings.get("path")
    return settings | ({"path": PurePath(path).name} if path else {})


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Args:
        folder: of the work that left them.
        weights: their file.
        sha256: of that file's content.
        settings: that the work depended on.
        foundation: what is known of it if it is a foundation model, whose file is its folder.
    """

    folder: Path
    weights: Path
    sha256: str
    settings: dict[str, Any]
    foundation: FoundationFile | None = None

    @property
    def labelled(self) -> bool:
        """Whether labels of a data set that is known are in the weights."""
        if self.foundation:
            return False
        stage = self.settings.get("finetune") or self.settings["pretrain"]
        return stage.get("task", {}).get("name") in ("energy_forces", "scalar")


def find_start(place: str) -> Start:
    """Weights that finished work has left.

    Args:
        place: its folder, or the file of a foundation model.

    Raises:
        UserError: if there are none, or it does not tell its settings.
    """
    try:
        folder = real_path(Path(place))
        if folder.is_file():
            made = read_foundation(folder)
            return Start(folder, folder, made.sha256, {"model": made.model}, made)
        known = folder.is_dir()
        found = load_result(folder)
    except (OSError, ValueError, RuntimeError) as problem:
        raise UserError(f"{place!r}: cannot be read ({problem}); name another folder") from None
    if not known:
        raise UserError(f"{place}: no such folder; name that of finished work, OUT/work/pretrain-…")
    if found is None:
        raise UserError(
            f"{place}: must have a whole {RESULT} with whole weights; name a folder of finished "
            "work, OUT/work/pretrain-… or OUT/work/trial-…, or run that study again"
        )
    if not found["weights"]:
        raise UserError(f"{place}: has no weights, because its training diverged; name another")
    if not found.get("settings"):
        raise UserError(
            f"{place}: does not tell its settings, as an older version of the code left it; do "
            "that work again with this one"
        )
    weights = folder / found["weights"]
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Start(folder, weights, sha256, found["settings"])
