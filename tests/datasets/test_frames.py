"""Frames: what is saved is loaded, damage is noticed, selection keeps what belongs together."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from study.core.errors import UserError
from study.core.hashing import digest
from study.datasets.frames import ARRAYS, Frames
from study.datasets.parsing import array_files
from study.datasets.parsing.header import read_header
from study.datasets.store import sizes_in
from tests.hostile import altered


def assert_equal(first: Frames, second: Frames) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.fixture
def folder(mixed_water: Frames, tmp_path: Path) -> Path:
    mixed_water.save(tmp_path / "set")
    return tmp_path / "set"


def test_saved_frames_are_loaded_bit_for_bit(mixed_water: Frames, folder: Path) -> None:
    loaded = Frames.load(folder)
    assert_equal(loaded, mixed_water)
    assert loaded.origin == {"recipe": "synthetic"}
    assert loaded.content_hash() == mixed_water.content_hash()


def test_saving_tells_the_content_hash(mixed_water: Frames, tmp_path: Path) -> None:
    assert mixed_water.save(tmp_path) == mixed_water.content_hash()


def test_the_origin_is_no_part_of_the_content_hash(water: Frames) -> None:
    assert replace(water, origin={"by": "hand"}).content_hash() == water.content_hash()


@pytest.mark.parametrize("name", ARRAYS)
def test_the_content_hash_changes_with_the_smallest_change_of_any_array(
    name: str, water: Frames
) -> None:
    array = getattr(water, name).copy()
    if array.dtype.kind == "f":
        array.flat[-1] = np.nextafter(array.flat[-1], np.inf)
    else:
        array.flat[-1] += 1
    assert replace(water, **{name: array}).content_hash() != water.content_hash()


def test_the_content_hash_changes_with_the_order_of_frames(water: Frames) -> None:
    assert water.select(np.arange(12)[::-1]).content_hash() != water.content_hash()


def test_the_content_hash_ignores_the_layout_in_memory(water: Frames) -> None:
    other = replace(
        water,
        positions=np.asfortranarray(water.positions),
        numbers=water.numbers.astype(np.int32),
        groups=water.groups.astype(np.int16),
    )
    assert other.content_hash() == water.content_hash()


def test_frames_without_any_frame_have_a_content_hash(water: Frames) -> None:
    nothing = water.select(np.array([], dtype=np.int64))
    assert len(nothing) == 0
    assert nothing.content_hash() != water.content_hash()


def test_selected_frames_keep_their_atoms_and_labels(mixed_water: Frames) -> None:
    chosen = [3, 0, 3, 2]
    selected = mixed_water.select(np.array(chosen))
    assert selected.sizes.tolist() == [12, 24, 12, 24]
    for place, frame in enumerate(chosen):
        here = slice(*selected.offsets[place : place + 2])
        there = slice(*mixed_water.offsets[frame : frame + 2])
        for name in ("numbers", "positions", "forces"):
            expected = getattr(mixed_water, name)[there]
            np.testing.assert_array_equal(getattr(selected, name)[here], expected)
        for name in ("cells", "energies", "groups"):
            expected = getattr(mixed_water, name)[frame]
            np.testing.assert_array_equal(getattr(selected, name)[place], expected)


def test_selecting_everything_changes_nothing(mixed_water: Frames) -> None:
    assert_equal(mixed_water.select(np.arange(4)), mixed_water)


@pytest.mark.parametrize("name", ["positions", "forces", "offsets", "cells", "groups"])
def test_an_array_of_the_wrong_shape_is_refused(name: str, water: Frames) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must have shape"):
        replace(water, **{name: getattr(water, name)[:-1]})


@pytest.mark.parametrize("name", [*(f"{array}.npy" for array in ARRAYS), "frames.json"])
def test_a_flipped_bit_is_refused_or_without_consequence(
    name: str, mixed_water: Frames, folder: Path
) -> None:
    path = folder / name
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(len(content), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            loaded = Frames.load(folder)
        except UserError:
            refused += 1
        else:
            assert_equal(loaded, mixed_water)
    # Bits that mean nothing are spaces in headers, and the origin of the frames.
    assert refused > 10


@pytest.mark.parametrize("name", [*(f"{array}.npy" for array in ARRAYS), "frames.json"])
def test_a_truncated_file_is_refused(name: str, folder: Path) -> None:
    path = folder / name
    content = path.read_bytes()
    # The last byte of the header is a line feed.
    for length in np.linspace(0, len(content) - 2, 20).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=folder.name):
            Frames.load(folder)


@pytest.mark.parametrize("name", [*(f"{array}.npy" for array in ARRAYS), "frames.json"])
def test_a_missing_file_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=folder.name):
        Frames.load(folder)


def labelled(water: Frames) -> Frames:
    return replace(water, properties={"zpve": np.arange(12.0), "charge": np.full(12, np.nan)})


def test_properties_are_saved_selected_and_part_of_the_content(
    water: Frames, tmp_path: Path
) -> None:
    frames = labelled(water)
    assert frames.labels == ("energy", "forces", "zpve")
    frames.save(tmp_path)
    loaded = Frames.load(tmp_path)
    assert loaded.content_hash() == frames.content_hash() != water.content_hash()
    assert loaded.select(np.array([3, 1])).properties["zpve"].tolist() == [3, 1]
    assert read_header(tmp_path)["units"]["zpve"] == "eV"
    other = replace(frames, properties={"r2": frames.properties["zpve"]})
    assert other.content_hash() != frames.content_hash()


def test_a_damaged_property_is_refused(water: Frames, tmp_path: Path) -> None:
    labelled(water).save(tmp_path)
    path = tmp_path / "property-zpve.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"property-zpve\.npy: missing, or not what was written"):
        Frames.load(tmp_path)


def test_properties_of_other_names_or_shapes_are_refused(water: Frames) -> None:
    with pytest.raises(ValueError, match="names of PROPERTIES, but got colour"):
        replace(water, properties={"colour": np.zeros(12)})
    with pytest.raises(ValueError, match=r"`gap` must have shape \(12,\)"):
        replace(water, properties={"gap": np.zeros(11)})


def test_frames_know_what_they_are_labelled_with(water: Frames) -> None:
    bare = replace(water, energies=water.energies * np.nan, forces=water.forces * np.nan)
    assert bare.labels == ()
    assert replace(water, forces=bare.forces).labels == ("energy",)


def other_frames(folder: Path, water: Frames) -> None:
    """The arrays of another set under this set's header."""
    header = (folder / "frames.json").read_bytes()
    water.save(folder)
    (folder / "frames.json").write_bytes(header)


def no_content_hash(folder: Path, _water: Frames) -> None:
    (folder / "frames.json").write_text('{"origin": {}}')


def a_list(folder: Path, _water: Frames) -> None:
    (folder / "frames.json").write_text("[]")


def not_arrays(folder: Path, _water: Frames) -> None:
    (folder / "energies.npy").write_text("no array")


def not_a_folder(folder: Path, _water: Frames) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


@pytest.mark.parametrize(
    "damage", [other_frames, no_content_hash, a_list, not_arrays, not_a_folder]
)
def test_a_folder_that_was_tampered_with_is_refused(
    damage: Callable[[Path, Frames], None], folder: Path, water: Frames
) -> None:
    damage(folder, water)
    with pytest.raises(UserError, match=folder.name):
        Frames.load(folder)


def test_a_save_that_stops_half_way_leaves_no_valid_folder(
    mixed_water: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("study.datasets.frames.write_json", full)
    with pytest.raises(OSError, match="disk full"):
        mixed_water.save(tmp_path)
    with pytest.raises(UserError):
        Frames.load(tmp_path)


def test_a_strange_header_is_a_line_or_without_consequence(
    mixed_water: Frames, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    replace(mixed_water, origin={"labels": [], "absent": [], "sizes": {}}).save(folder)
    path = folder / "frames.json"
    header = json.loads(path.read_text())
    del header["digest"]
    refused = []
    for value in altered(header, 1):
        path.write_text(json.dumps(value | {"digest": digest(value)}))
        try:
            assert_equal(Frames.load(folder), mixed_water)
        except UserError as problem:
            refused.append(str(problem))
    assert len(refused) > 80
    assert all(each.startswith(str(folder)) and "\n" not in each for each in refused)
    assert all("made again" in each for each in refused)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "\0", '{"digest": 1}', ""])
def test_a_header_that_is_none_is_a_line(folder: Path, text: str) -> None:
    (folder / "frames.json").write_text(text)
    with pytest.raises(UserError, match=r"^\S+frames.json: [^\n]*$"):
        Frames.load(folder)


@pytest.mark.parametrize("sizes", [{}, {"groups": 1}, {"groups": [], "copies": [[1]], "x": 2}])
def test_strange_sizes_are_a_line(
    mixed_water: Frames, tmp_path: Path, sizes: dict[str, object]
) -> None:
    replace(mixed_water, origin={"sizes": sizes}).save(tmp_path)
    with pytest.raises(UserError, match=r"frames.json: holds what .* made again$"):
        sizes_in(tmp_path)


def test_a_large_file_is_mapped_and_known_by_its_time_until_that_changes(
    water: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_files, "MAPPED", 1000)
    water.save(tmp_path)
    path = tmp_path / "positions.npy"
    stamp, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    # It may have changed twice within a tick of the clock, and is read.
    with pytest.raises(UserError, match=r"positions\.npy: missing, or not what was written"):
        Frames.load(tmp_path, known=True)
    monkeypatch.setattr(array_files, "SETTLED", 0)
    changed = Frames.load(tmp_path, known=True)
    assert isinstance(changed.positions.base, np.memmap)
    with pytest.raises(UserError, match="not what was written"):
        Frames.load(tmp_path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    with pytest.raises(UserError, match="not what was written"):
        Frames.load(tmp_path, known=True)
    path.write_bytes(content)
    loaded = Frames.load(tmp_path, known=True)
    assert_equal(loaded, water)
    loaded.positions[:] = 0
    assert_equal(Frames.load(tmp_path), water)
