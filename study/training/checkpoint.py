"""Training states on disk: safetensors files that carry their own SHA-256 in their name."""

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

KEPT = 2
"""Newest checkpoints kept, so that a damaged one has a good predecessor."""


@dataclass(frozen=True)
class Checkpoint:
    """All that training needs to go on bit by bit.

    Args:
        epoch: epochs finished.
        tensors: weights, optimizer state and best weights, by dotted name.
        state: JSON values: history of metrics, best epoch, compute seconds.
        step: steps of the next epoch finished.
    """

    epoch: int
    tensors: dict[str, Tensor]
    state: dict[str, Any] = field(default_factory=dict)
    step: int = 0

    @property
    def stem(self) -> str:
        """In the name of its file; a later one's is greater, whatever hash follows."""
        within = f"-step-{self.step:08d}" if self.step else ""
        return f"{self.epoch:08d}{within}"

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose name starts with `prefix.`, without it."""
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
    """Write a checkpoint, then delete all but the newest `KEPT`."""
    _save(folder, "epoch", checkpoint)
    for old in _newest_first(folder)[KEPT:]:
        remove(old)


def save_selected(folder: Path, checkpoint: Checkpoint) -> None:
    """Write what training would end with after this epoch; it is kept."""
    _save(folder, "selected", checkpoint)


def newest_checkpoint(folder: Path, last: int | None = None) -> Checkpoint | None:
    """The newest undamaged checkpoint of a folder; none if there is no such file.

    Newer, damaged ones are deleted, so that they do not count as kept, and the user is told.

    Args:
        folder: of the checkpoints.
        last: epoch after which none is wanted.
    """
    wanted = [path for path in _newest_first(folder) if last is None or _place(path) <= (last, 0)]
    return _first_undamaged(wanted)


def selected_after(folder: Path, epoch: int) -> Checkpoint | None:
    """What `save_selected` has written after an epoch; none if it is not there or damaged."""
    return _first_undamaged(folder.glob(f"selected-{epoch:08d}-*.safetensors"))


def _first_undamaged(paths: Iterable[Path]) -> Checkpoint | None:
    import safetensors.torch

    for path in paths:
        content = _content(path)
        if content is None:
            discard(path, "training goes on from an earlier checkpoint")
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
    """`Checkpoint.state` of the newest undamaged checkpoint, without its tensors and torch.

    Changes nothing, because some other process may train here.
    """
    for path in _newest_first(folder):
        content = _content(path)
        if content is not None:
            state: dict[str, Any] = json.loads(_metadata(content)["state"])
            return state
        if path.exists():
            logger.warning("%s: damaged, left out", path)
    return None


def _content(path: Path) -> bytes | None:
    """What was written; none if it is damaged."""
    try:
        return read_hashed(path)
    except DamagedFileError:
        return None


def delete_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of finished work."""
    for path in _newest_first(folder):
        remove(path)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.safetensors"), reverse=True)


def _place(path: Path) -> tuple[int, int]:
    """Epochs, and steps of the next one, that are finished."""
    _, epoch, *rest = path.name.split("-")
    return int(epoch), int(rest[1]) if rest[0] == "step" else 0


def _metadata(content: bytes) -> dict[str, str]:
    """The `__metadata__` entry of the JSON header, which the library reads only from paths."""
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    found: dict[str, str] = header["__metadata__"]
    return found
