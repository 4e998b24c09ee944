"""`python -m study.data fetch`: what is downloaded, compared, unpacked, resumed and refused."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from study.data import main
from study.datasets.config import AnyDataset
from study.datasets.sources import catalog
from study.datasets.sources.catalog import SETS, Published
from study.datasets.sources.download import Source

CONTENT = bytes(range(256)) * 40


class _Server(BaseHTTPRequestHandler):
    """Serves `content`; breaks off the next answer after `breaks_at` bytes if that is set."""

    content = CONTENT
    breaks_at = -1
    ranges: list[str] = []  # noqa: RUF012 - reset by the fixture

    def do_GET(self) -> None:
        self.ranges.append(self.headers["Range"])
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        rest = self.content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        end, type(self).breaks_at = type(self).breaks_at, -1
        self.wfile.write(rest[:end] if end >= 0 else rest)

    def log_message(self, *_arguments: object) -> None:
        """Silence."""


@pytest.fixture
def server() -> Iterator[type[_Server]]:
    _Server.content, _Server.breaks_at, _Server.ranges = CONTENT, -1, []
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    _Server.address = f"http://127.0.0.1:{running.server_port}/file"  # type: ignore[attr-defined]
    yield _Server
    running.shutdown()
    running.server_close()


@pytest.fixture
def entry(server: type[_Server], monkeypatch: pytest.MonkeyPatch) -> Published:
    """A set of one file, with the right size and checksum."""
    sum_of = hashlib.md5(CONTENT).hexdigest()
    source = Source(server.address, "a.npz", len(CONTENT), sum_of)  # type: ignore[attr-defined]
    made = Published("A set", "CC0", "md17_npz", "a.npz", (source,))
    monkeypatch.setitem(catalog.SETS, "mine", made)
    return made


def test_a_file_is_compared_recorded_and_named_for_a_space_and_fetched_once(
    entry: Published, server: type[_Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["fetch", "mine", "--out", str(tmp_path)]) == 0
    assert len(server.ranges) == 1
    place = tmp_path / "downloads" / "mine" / "a.npz"
    assert place.read_bytes() == CONTENT
    out = capsys.readouterr().out
    assert f"dataset: {{name: md17_npz, path: {place}}}" in out
    assert "licence       CC0" in out
    assert f"MD5 {entry.sources[0].md5}" in out
    record = json.loads(place.with_name("a.npz.json").read_text())
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.usefixtures("entry")
def test_what_broke_off_goes_on(
    server: type[_Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.breaks_at = 1000
    assert main(["fetch", "mine", "--out", str(tmp_path)]) == 2
    assert "run again to go on" in capsys.readouterr().err
    assert main(["fetch", "mine", "--out", str(tmp_path)]) == 0
    assert server.ranges == ["bytes=0-", "bytes=1000-"]


@pytest.mark.usefixtures("entry")
@pytest.mark.parametrize(
    ("content", "rule"),
    [(CONTENT[:-1], "must have 10240 bytes, but has 10239"), (CONTENT[::-1], "the MD5 sum")],
)
def test_another_file_than_the_published_one_is_refused_and_not_kept(
    content: bytes,
    rule: str,
    server: type[_Server],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.content = content
    assert main(["fetch", "mine", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    # Put there by hand it is refused as well, and left.
    place = tmp_path / "downloads" / "mine" / "a.npz"
    place.write_bytes(content)
    assert main(["fetch", "mine", "--out", str(tmp_path)]) == 2
    assert rule in capsys.readouterr().err
    assert place.exists()


def test_offline_the_way_by_hand_is_told_and_taken(
    entry: Published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    away = replace(entry.sources[0], address="http://127.0.0.1:1/a.npz")
    monkeypatch.setitem(catalog.SETS, "mine", replace(entry, sources=(away,)))
    assert main(["fetch", "mine", "--out", str(tmp_path)]) == 2
    place = tmp_path / "downloads" / "mine" / "a.npz"
    assert f"put it at {place}" in capsys.readouterr().err
    place.write_bytes(CONTENT)
    assert main(["fetch", "mine", "--out", str(tmp_path)]) == 0


def tar_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as opened:
        member = tarfile.TarInfo(name)
        member.size = len(CONTENT)
        opened.addfile(member, io.BytesIO(CONTENT))
    return buffer.getvalue()


def zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr(name, CONTENT)
    return buffer.getvalue()


def packed_in(archive: str, entry: Published, server: type[_Server]) -> Published:
    """The set as one archive, which holds `a/b.npz`."""
    source = Source(server.address, archive)  # type: ignore[attr-defined]
    return replace(entry, path="a/b.npz", sources=(source,), archives=(archive,))


@pytest.mark.parametrize(("archive", "made"), [("a.tar.bz2", tar_of), ("a.zip", zip_of)])
def test_an_archive_is_unpacked_and_may_not_write_elsewhere(
    archive: str,
    made: Callable[[str], bytes],
    entry: Published,
    server: type[_Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(catalog.SETS, "mine", packed_in(archive, entry, server))
    server.content = made("../../b.npz")
    assert main(["fetch", "mine", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "cannot be unpacked" in error or "must hold a/b.npz after unpacking" in error
    assert not list(tmp_path.rglob("b.npz"))
    shutil.rmtree(tmp_path / "downloads")
    server.content = made("a/b.npz")
    assert main(["fetch", "mine", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "downloads" / "mine" / "a" / "b.npz").read_bytes() == CONTENT


def test_a_damaged_zip_is_told_and_leaves_nothing_half_unpacked(
    entry: Published,
    server: type[_Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(catalog.SETS, "mine", packed_in("a.zip", entry, server))
    content = bytearray(zip_of("a/b.npz"))
    content[content.index(CONTENT) + len(CONTENT) // 2] ^= 1
    server.content = bytes(content)
    assert main(["fetch", "mine", "--out", str(tmp_path)]) == 2
    assert "a.zip: cannot be unpacked" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.unpacking*"))
    assert not list(tmp_path.rglob("b.npz"))


def test_names_that_cannot_be_fetched_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "qm10", "--out", str(tmp_path)]) == 2
    assert "must be one of rpbe, qm9" in capsys.readouterr().err
    assert main(["fetch", "des15k", "--out", str(tmp_path)]) == 2
    assert "download it by hand" in capsys.readouterr().err


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_one_that_a_space_can_name(name: str) -> None:
    entry = SETS[name]
    TypeAdapter(AnyDataset).validate_python({"name": entry.dataset, "path": entry.path})
    assert set(entry.archives) <= {source.name for source in entry.sources}
    for source in entry.sources:
        assert source.address.startswith(("http://", "https://"))
        assert len(source.md5) in (0, 32)
