"""Checkpoints: what is read is what was written, or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from study.core.atomic_io import DamagedFileError
from study.training.checkpoint import (
    Checkpoint,
    delete_checkpoints,
    load_tensors,
    newest_checkpoint,
    save_checkpoint,
    save_tensors,
)

TENSORS = {
    "model.weight": torch.randn(5, 7, generator=torch.Generator().manual_seed(0)),
    "model.deep.bias": torch.arange(3, dtype=torch.float64) / 3,
    "optimizer.0.step": torch.tensor(3.0),
    "best.weight": torch.tensor([[1, 2], [3, 4]]).t(),
}


def checkpoint(epoch: int, note: str = "") -> Checkpoint:
    return Checkpoint(epoch, TENSORS, {"history": [{"loss": 0.1 + epoch}], "note": note})


def newest_path(folder: Path) -> Path:
    return max(folder.glob("*.safetensors"))


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    loaded = load_tensors(save_tensors(tmp_path, "weights", TENSORS))
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_equal_tensors_give_equal_file_names(tmp_path: Path) -> None:
    copies = {name: tensor.clone() for name, tensor in reversed(TENSORS.items())}
    first, second = (save_tensors(tmp_path / part, "w", TENSORS) for part in "ab")
    assert save_tensors(tmp_path / "c", "w", copies).name == first.name == second.name
    copies["optimizer.0.step"] += 1
    assert save_tensors(tmp_path / "d", "w", copies).name != first.name


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(12, "σ"))
    loaded = newest_checkpoint(tmp_path)
    assert loaded is not None
    assert (loaded.epoch, loaded.state) == (12, checkpoint(12, "σ").state)
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_numbers_of_the_history_come_back_bit_for_bit(tmp_path: Path) -> None:
    numbers = [0.1 + 0.2, 1e-310, np.pi, 1 / 3, 2.0**60 + 2]
    save_checkpoint(tmp_path, Checkpoint(1, TENSORS, {"numbers": numbers}))
    loaded = newest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.state["numbers"] == numbers


def test_a_part_has_the_tensors_of_its_prefix() -> None:
    assert checkpoint(1).part("model").keys() == {"weight", "deep.bias"}
    assert checkpoint(1).part("mod") == {}


@pytest.mark.parametrize("bit", np.random.default_rng(0).integers(0, 2**32, 64).tolist())
def test_a_flipped_bit_is_detected(bit: int, tmp_path: Path) -> None:
    path = save_tensors(tmp_path, "weights", TENSORS)
    content = bytearray(path.read_bytes())
    content[(bit // 8) % len(content)] ^= 1 << (bit % 8)
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="does not match the hash"):
        load_tensors(path)


@pytest.mark.parametrize("fraction", np.linspace(0, 0.999, 20).tolist())
def test_a_truncated_file_is_detected(fraction: float, tmp_path: Path) -> None:
    path = save_tensors(tmp_path, "weights", TENSORS)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(DamagedFileError, match="does not match the hash"):
        load_tensors(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"weights-x\.safetensors: cannot be read"):
        load_tensors(tmp_path / "weights-x.safetensors")


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "missing") is None


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for epoch in (8, 9, 10, 11):
        save_checkpoint(tmp_path, checkpoint(epoch))
    names = sorted(path.name[:14] for path in tmp_path.iterdir())
    assert names == ["epoch-00000010", "epoch-00000011"]
    loaded = newest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.epoch == 11


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, checkpoint(epoch))
    newest_path(tmp_path).write_bytes(b"torn")
    loaded = newest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.epoch == 1


def test_a_damaged_checkpoint_does_not_crowd_out_a_good_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    (tmp_path / f"epoch-00000002-{'f' * 32}.safetensors").write_bytes(b"torn")
    # What training does next: it goes on from epoch 1 and saves epoch 2 under another name,
    # because its seconds differ. Then epoch 3 is damaged in turn.
    newest_checkpoint(tmp_path)
    for epoch in (2, 3):
        save_checkpoint(tmp_path, checkpoint(epoch))
    newest_path(tmp_path).write_bytes(b"torn")
    loaded = newest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.epoch == 2


def test_deleting_checkpoints_leaves_weights_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    weights = save_tensors(tmp_path, "weights", TENSORS)
    delete_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == [weights]
