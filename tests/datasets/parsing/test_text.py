"""What is unpacked is bounded; archives are named as such."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from study.core.errors import UserError
from study.datasets.parsing.text import plain_suffix, tar_members, whole_text


def packed(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_members_of_a_tar_come_one_after_the_other(mode: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "set.tar", {"a.xyz": b"1", "b.txt": b"2", "c/d.xyz": b"3"}, mode)
    with tar_members(path, ".xyz") as members:
        assert [(name, stream.read()) for name, stream in members] == [
            ("a.xyz", b"1"),
            ("c/d.xyz", b"3"),
        ]


def test_a_tar_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    # What is passed over has to be unpacked as well.
    path = packed(tmp_path / "bomb.tar.gz", {"zeros.bin": bytes(80_000_000), "a.xyz": b"1"})
    with pytest.raises(UserError, match="200 times its size"), tar_members(path, ".xyz") as members:
        next(members)


def test_a_small_text_may_be_zipped_and_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfa\n" + b" " * 1000))
    assert whole_text(path).startswith("a\n")
    with pytest.raises(UserError, match="unpack to at most 500 bytes"):
        whole_text(path, 500)


@pytest.mark.parametrize(
    ("head", "kind"), [(b"PK\x03\x04", "a zip archive"), (b"(\xb5/\xfd", "packed with zstd")]
)
def test_what_is_not_unpacked_here_is_named(head: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "water.xyz").write_bytes(head + b"x" * 20)
    with pytest.raises(UserError, match=f"{kind}; unpack it"):
        whole_text(tmp_path / "water.xyz")


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.XYZ", ".xyz"), ("a.b.xyz.gz", ".xyz"), ("run@2.traj", ".traj")]
)
def test_the_suffix_is_that_of_the_plain_file(name: str, suffix: str) -> None:
    assert plain_suffix(Path(name)) == suffix
