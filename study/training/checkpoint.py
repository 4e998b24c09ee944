"""Checkpoints: safetensors files whose names contain the SHA-256 of their content."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.atomic_io import DamagedFileError, discard, read_hashed, remove, write_hashed

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

N_KEPT = 2
"""Number of newest checkpoints to keep, so that a damaged one has an intact predecessor."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training from which it resumes bit for bit.

    Args:
        epoch: finished epochs.
        tensors: weights, optimizer state and best weights, by dotted name.
        state: JSON values: history of metrics, best epoch, compute seconds.
        step: finished steps of the next epoch.
    """

    epoch: int
    tensors: dict[str, Tensor]
    state: dict[str, Any] = field(default_factory=dict)
    step: int = 0

    @property
    def stem(self) -> str:
        """Part of the file name that sorts checkpoints by progress."""
        within = f"-step-{self.step:08d}" if self.step else ""
        return f"{self.epoch:08d}{within}"

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose name starts with `prefix.`, by their name without it."""
        return {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }


def save_tensors(
    folder: Path, stem: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> Path:
    """Write `<stem>-<hash>.safetensors` atomically and return its path."""
    import safetensors.torch

    detached = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(detached, metadata)
    return write_hashed(folder, stem, ".safetensors", content)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file written by `save_tensors`.

    Raises:
        DamagedFileError: if it is missing, or one bit differs from what was written.
    """
    import safetensors.torch

    return safetensors.torch.load(read_hashed(path))


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, then delete all but the newest `N_KEPT`."""
    _save(folder, "epoch", checkpoint)
    for old in _newest_first(folder)[N_KEPT:]:
        remove(old)


def save_selected(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the weights that training would end with after this epoch; it is never deleted."""
    _save(folder, "selected", checkpoint)


def newest_checkpoint(folder: Path, last: int | None = None) -> Checkpoint | None:
    """Load the newest undamaged checkpoint of a folder; None if there is none.

    Damaged ones are deleted with a warning, so that they do not count towards `N_KEPT`.

    Args:
        folder: of the checkpoints.
        last: ignore checkpoints after this epoch.
    """
    paths = _newest_first(folder)
    return _first_undamaged(
        path for path in paths if last is None or _epoch_and_step(path) <= (last, 0)
    )


def selected_after(folder: Path, epoch: int) -> Checkpoint | None:
    """Load what `save_selected` wrote after an epoch; None if it is missing or damaged."""
    return _first_undamaged(folder.glob(f"selected-{epoch:08d}-*.safetensors"))


def _first_undamaged(paths: Iterable[Path]) -> Checkpoint | None:
    import safetensors.torch

    for path in paths:
        content = _read_intact(path)
        if content is None:
            discard(path, "training resumes from an earlier checkpoint")
            continue
        metadata = _metadata(content)
        tensors = safetensors.torch.load(content)
        return Checkpoint(
            int(metadata["epoch"]), tensors, json.loads(metadata["state"]), int(metadata["step"])
        )
    return None


def _save(folder: Path, kind: str, checkpoint: Checkpoint) -> None:
    metadata = {
        "epoch": str(checkpoint.epoch),
        "step": str(checkpoint.step),
        "state": json.dumps(checkpoint.state),
    }
    save_tensors(folder, f"{kind}-{checkpoint.stem}", checkpoint.tensors, metadata)


def newest_state(folder: Path) -> dict[str, Any] | None:
    """Read `Checkpoint.state` of the newest undamaged checkpoint, without its tensors and torch.

    No file is changed, because another process may be training here.
    """
    for path in _newest_first(folder):
        content = _read_intact(path)
        if content is not None:
            state: dict[str, Any] = json.loads(_metadata(content)["state"])
            return state
        if path.exists():
            logger.warning("%s: damaged, skipped", path)
    return None


def _read_intact(path: Path) -> bytes | None:
    """Read a file; None if it is damaged."""
    try:
        return read_hashed(path)
    except DamagedFileError:
        return None


def delete_checkpoints(folder: Path, kept: int = 0) -> None:
    """Remove the checkpoints of finished work, all but so many of the newest."""
    for path in _newest_first(folder)[kept:]:
        remove(path)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.safetensors"), reverse=True)


def _epoch_and_step(path: Path) -> tuple[int, int]:
    """Finished epochs, and finished steps of the next one, by the name of the file."""
    _, epoch, *rest = path.name.split("-")
    return int(epoch), int(rest[1]) if rest[0] == "step" else 0


def _metadata(content: bytes) -> dict[str, str]:
    """Parse the `__metadata__` entry of the JSON header; the library reads it only from paths."""
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata
