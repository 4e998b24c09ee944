"""A small sample of `python -m tests.fuzz`, without processes: lost and blank lines, cuts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from study.core.errors import UserError
from study.datasets.readers.detect import read_set
from tests.fuzz.cases import cut_at_a_frame
from tests.fuzz.damage import KINDS, damage
from tests.fuzz.files import ALL, write_extxyz
from tests.fuzz.judge import misread

TEXT = [name for name in ALL if damage(name, b"1\n2\n", KINDS.index("line")).kind == "line"]


@pytest.mark.parametrize("kind", ["line", "blank", "cut"])
@pytest.mark.parametrize("name", TEXT)
def test_frames_of_damaged_text_are_those_of_the_file(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    ALL[name](path)
    content, whole = path.read_bytes(), read_set(path)
    for seed in range(KINDS.index(kind), 30, len(KINDS)):
        harm = damage(name, content, seed)
        path.write_bytes(harm.content)
        try:
            frames = read_set(path)
        except UserError:
            continue
        told = frames.origin.get("labels")
        at_a_frame = cut_at_a_frame(harm.content, content, name)
        assert harm.within_a_value or told or not misread(frames, whole, cut_at_a_frame=at_a_frame)


def test_other_frames_and_fewer_are_misread(tmp_path: Path) -> None:
    write_extxyz(tmp_path / "water.extxyz")
    whole = read_set(tmp_path / "water.extxyz")
    fewer = whole.select(np.arange(4))
    assert misread(whole, whole, cut_at_a_frame=False) == ""
    assert misread(fewer, whole, cut_at_a_frame=False) == "4 of 6 frames"
    assert misread(fewer, whole, cut_at_a_frame=True) == ""
    other = replace(whole, energies=whole.energies + np.eye(6)[2])
    assert misread(other, whole, cut_at_a_frame=False) == "frame 2 is none of the file's"
