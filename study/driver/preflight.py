"""What a study needs is checked before its first second is paid, and before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from study.core.errors import MachineError
from study.core.paths import (
    nearest_existing,
    require_no_links,
    require_own_file,
    require_writable,
)
from study.driver import ray_cluster
from study.driver.session import require_cluster
from study.planning.plan import Plan
from study.tracking.mlflow_db import artifacts_of, has_no_server, require_reachable

WRITTEN = ("data", "splits", "code", "work", "studies")
"""Folders of results that are written to."""


def require_ready(plan: Plan, address: str | None, disk: float) -> None:
    """Refuse what would make the study fail after hours, or lose its records.

    Args:
        plan: of the study.
        address: of a Ray cluster; none to run on this machine.
        disk: estimate of what the study will write, bytes.

    Raises:
        UserError: if a place cannot be written to, is a link, or a server does not respond.
        MachineError: if the disk is too small, or the cluster does not let us in.
    """
    _require_places(plan)
    _require_disk(plan.root, disk)
    require_reachable(plan.tracking_uri)
    if has_no_server(plan.tracking_uri):
        artifacts_of(plan.root)
    if address:
        require_cluster(address)
        _join_once(plan, address)


def _require_places(plan: Plan) -> None:
    study = plan.folder
    folders = [plan.root / name for name in WRITTEN] + [study.path, study.path / "ray"]
    for place in (*folders, study.path / "study.json"):
        require_no_links(place)
    for place in (study.lock, study.journal):
        require_own_file(place)
    for folder in dict.fromkeys(map(nearest_existing, (plan.root, *folders))):
        require_writable(folder)


def _require_disk(root: Path, needed: float) -> None:
    free = shutil.disk_usage(nearest_existing(root)).free
    if free < needed:
        raise MachineError(
            f"{root}: the study will write about {_size(needed)}, but only {_size(free)} are free; "
            "delete something there, or choose another --out"
        )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _join_once(plan: Plan, address: str) -> None:
    """Join the cluster and leave it: data may take hours, in which it may be restarted."""
    try:
        ray_cluster.connect(plan.space.settings.resources, address=address)
    finally:
        ray_cluster.disconnect()
