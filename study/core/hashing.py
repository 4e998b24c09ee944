"""Names for pieces of work: the hash of all that their result depends on."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

CODE_THAT_MATTERS = (
    "core/elements.py",
    "core/pairs.py",
    "core/seeding.py",
    "datasets/splits.py",
    "graphs/graph_set.py",
    "graphs/neighbor_list.py",
    "graphs/topology.py",
    "models",
    "pipeline/execute.py",
    "pipeline/setup.py",
    "tasks",
    "training/compiler.py",
    "training/fx_passes.py",
    "training/gradients.py",
    "training/loop.py",
    "training/precision.py",
    "training/program_cache.py",
    "training/runtime.py",
    "training/schedule.py",
    "training/state.py",
)
"""Sources, relative to this package, that decide the numbers a trial produces."""


OWN_CODE: dict[str, str] = {}
"""SHA-256 of the user's own code that runs in this process, by its module or package."""


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_version() -> str:
    """SHA-256 over the sources that decide the numbers, and the versions of what they build on."""
    package = Path(__file__).parents[1]
    entries = [package / entry for entry in CODE_THAT_MATTERS]
    files = [entry for entry in entries if entry.suffix == ".py"]
    files += [source for entry in entries if entry.is_dir() for source in entry.rglob("*.py")]
    named = {path.relative_to(package).as_posix(): path.read_text() for path in files}
    versions = {name: version(name) for name in ("torch", "torch-geometric")}
    return digest({"sources": named} | versions)


def own_version(thing: object) -> str:
    """SHA-256 of the user's code that a class or function is from; empty if it is not."""
    module = getattr(getattr(thing, "func", thing), "__module__", "")
    return OWN_CODE.get(str(module).partition(".")[0], "")


def without_places(settings: Any) -> Any:
    """JSON settings whose own code and weights are known by their content, wherever they lie."""
    if isinstance(settings, list):
        return [without_places(each) for each in settings]
    if not isinstance(settings, dict):
        return settings
    known = "sha256" in settings
    return {
        name: without_places(value)
        for name, value in settings.items()
        if not (known and name in ("code", "from"))
    }
