"""What may not change between two runs of a study, because its results would mean another thing."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from study.core.atomic_io import owned_by_current_user
from study.core.errors import UserError
from study.core.hashing import code_version, without_places
from study.datasets.parsing.header import read_header
from study.datasets.sources.remote import DOWNLOADS, copy_of
from study.planning.study_dir import StudyDir, environment_of
from study.space.distributions import HOLES
from study.space.search_space import Space

MUTABLE_KEYS = {"question", "resources", "profile"}
"""Keys of a space that may change between two runs of a study: they change no number."""


def require_same_study(study: StudyDir, space: Space) -> None:
    """Refuse to continue a study whose space or code has changed.

    Trials already recorded would silently mean something else. Adding seeds, choices or
    proposals is no change to them, and a study in which no work has begun may change freely.

    Raises:
        UserError: naming each difference.
    """
    _check_owner(study)
    before = study.read()
    if before is None or not study.has_begun():
        return
    new_name = f"give the changed study its own name with --name {study.name}-2"
    if before["code_version"] != code_version():
        raise UserError(
            f"{study.path}: the code that decides the numbers has changed since this study "
            f"began; finish it with the old version, or {new_name}"
        )
    old, new = _by_content(before["space"]), _by_content(space.resolved())
    changes = differences(old, new, grid=space.settings.search is None)
    search = space.settings.search
    if search and search.population and old["search"]["trials"] != search.trials and not changes:
        # A larger one would have had other parents from the second generation on.
        changes = [
            f"search.trials, the size of the population, was {old['search']['trials']} when this "
            f"study began, and is {search.trials} now"
        ]
    if changes:
        raise UserError(*(f"{space.path}: {change}; {new_name}" for change in changes))


def _by_content(value: Any, key: str = "") -> Any:
    """A space without places: of code and weights, known by their hash, and of its data sets.

    Data sets are compared by `require_same_datasets`.
    """
    if isinstance(value, list):
        return [_by_content(each, key) for each in value]
    if not isinstance(value, dict):
        return value
    shipped = key == "dataset" and "sha256" not in value
    return {
        name: _by_content(child, key if name in HOLES else name)
        for name, child in without_places(value).items()
        if not (shipped and name == "path")
    }


def _check_owner(study: StudyDir) -> None:
    """Refuse a folder that someone else could have prepared.

    Raises:
        UserError: if it belongs to another user, or is a link to somewhere else.
    """
    if not study.path.resolve().is_relative_to((study.root / "studies").resolve()):
        raise UserError(
            f"{study.path}: is a link to {study.path.resolve()}; remove it, or choose a --name"
        )
    for place in (study.path, study.path / "study.json", study.journal):
        if place.exists() and not owned_by_current_user(place):
            raise UserError(
                f"{place}: belongs to user {place.stat().st_uid}, not to you; choose another "
                "--name or --out, or have it given to you with chown"
            )


def require_same_datasets(study: StudyDir, folders: Collection[str]) -> None:
    """Refuse to continue a study whose space now names other data, wherever they lie.

    Args:
        study: the study.
        folders: names of the data sets' folders, which follow from their content.

    Raises:
        UserError: naming the data set that is missing.
    """
    before = study.read() if study.has_begun() else None
    for folder in (before or {}).get("data", {}):
        if folder not in folders:
            raise UserError(
                f"{study.path}: began with the data set {folder}, but its space now names other "
                f"data, {', '.join(sorted(folders))}; bring that one back{_kept(study, folder)}, "
                f"or give the study a new name with --name {study.name}-2"
            )


def _kept(study: StudyDir, folder: str) -> str:
    """Where a copy of a data set's file is kept, if it was fetched from elsewhere."""
    with suppress(UserError, KeyError):
        content = read_header(study.root / "data" / folder)["origin"]["sha256"]
        copy = copy_of(content, study.root / DOWNLOADS)
        return f" (its file is kept as {copy})" if copy else ""
    return ""


def require_same_data(study: StudyDir, data: dict[str, str]) -> None:
    """Refuse to continue a study whose data set has changed.

    Args:
        study: the study.
        data: content hash of each data set, by the name of its folder.

    Raises:
        UserError: naming the data set.
    """
    before = study.read() if study.has_begun() else None
    for folder, content in (before or {}).get("data", {}).items():
        if data.get(folder, content) != content:
            raise UserError(
                f"{study.root / 'data' / folder}: is not the data set that this study began "
                f"with; bring that one back, or give the study a new name with --name "
                f"{study.name}-2"
            )


ROUNDING = "numbers may differ in rounding or more"


def environment_changes(study: StudyDir, space: Space) -> list[str]:
    """Name what can change numbers and is another than when the study last ran; a line each.

    Such a change is no error: it mostly changes roundings, and no job's name, but that of the
    package of which a model is made.
    """
    before = (study.read() or {}).get("environment", {}) if study.has_begun() else {}
    now = environment_of(space)
    anew = {trial.model.package: trial.model.name for trial in space.samples}
    return [
        f"{name} is {now.get(name, 'not set')} now and was {before.get(name, 'not set')} when the "
        f"study last ran; {f'trials of {anew[name]} begin anew' if name in anew else ROUNDING}"
        for name in dict.fromkeys((*before, *now))
        if before and before.get(name) != now.get(name)
    ]


def differences(old: Any, new: Any, place: str = "", *, grid: bool = True) -> list[str]:
    """What changed between two resolved spaces, beyond additions; one phrase each.

    Args:
        old: the space, or a part of it.
        new: the same part of the other.
        place: of the part, as dotted keys.
        grid: whether a value may become a choice with others beside it; Optuna's earlier proposals
            would lack the new hole.
    """
    if old == new or place in MUTABLE_KEYS:
        return []
    if grid and isinstance(new, dict) and [*new] == ["choice"] and old in new["choice"]:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in [*old, *(key for key in new if key not in old)]
            for change in differences(
                old.get(key), new.get(key), f"{place}.{key}".lstrip("."), grid=grid
            )
        ]
    if place == "seeds" and new[: len(old)] == old:
        return []
    if place.endswith(".choice") and isinstance(new, list) and all(item in new for item in old):
        return []
    if place == "search.learn_from" and old and new:
        return []  # What was learned is in the study's folder, wherever it came from.
    if place in ("search.trials", "search.repeat_best") and new > old:
        return []
    return [f"{place} was {json.dumps(old)} when this study began, and is {json.dumps(new)} now"]
