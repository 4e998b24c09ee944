"""Folders of data as people have them: links to runs elsewhere, files that other programs hide."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.core.errors import UserError
from study.datasets.parsing.folders import files_below, files_in
from study.datasets.readers.atoms.folder import files_of


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_links_are_followed_once_and_hidden_copies_left_out(tmp_path: Path) -> None:
    run = tree(tmp_path / "elsewhere", "b.xyz", "deep/c.xyz")
    hidden = ("._a.xyz", ".ipynb_checkpoints/a.xyz")
    folder = tree(tmp_path / "data", "a.xyz", "notes.txt", *hidden)
    (folder / "run").symlink_to(run)
    (folder / "run again").symlink_to(run)
    (folder / "up").symlink_to(folder)
    (folder / "d.xyz").symlink_to(run / "b.xyz")
    found = [str(file.relative_to(folder)) for file in files_below(folder, "*.xyz")]
    assert len(found) == 4
    assert {name.rpartition("/")[2] for name in found} == {"a.xyz", "b.xyz", "c.xyz", "d.xyz"}


def test_a_link_to_nothing_is_refused_where_data_are(tmp_path: Path) -> None:
    folder = tree(tmp_path, "a.xyz")
    (folder / "notes").symlink_to(tmp_path / "gone")
    assert files_of(folder) == [folder / "a.xyz"]
    (folder / "b.xyz").symlink_to(tmp_path / "gone.xyz")
    with pytest.raises(UserError, match=r"b\.xyz: is a link to nothing"):
        files_of(folder)


def test_a_folder_that_may_not_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(PermissionError):
        files_below(tree(tmp_path, "a.xyz"))


def test_hidden_files_beside_others_are_left_out(tmp_path: Path) -> None:
    folder = tree(tmp_path, "b.npz", "a.npz", "._a.npz", "below/c.npz")
    assert [file.name for file in files_in(folder)] == ["a.npz", "b.npz"]
