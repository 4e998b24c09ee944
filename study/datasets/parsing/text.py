"""Text of plain and zipped files, line by line, with bounds on what is unpacked."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import math
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from study.core.errors import UserError
from study.datasets.parsing.guard import guarded

LONGEST_LINE = 1_000_000
"""Characters; no format here has longer ones."""
MOST_UNPACKED = 200
"""Times the size of a zipped file; text of numbers has 2 to 10."""
SMALL = 64_000_000
"""Bytes that any file may unpack to."""
CHUNK = 1 << 20
OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
}
ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"(\xb5/\xfd": "packed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
}
"""What is not unpacked here, by its first bytes."""
MAGIC = {b"\x1f\x8b": ".gz", b"\xfd7zXZ": ".xz", b"BZh": ".bz2"}
DIGITS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?", re.ASCII)


class Bounded(io.RawIOBase):
    """What a zipped file holds, up to a bound.

    Args:
        stream: unpacks the file.
        path: of the file.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        super().__init__()
        self.stream, self.path, self.count = stream, path, 0
        self.most = max(SMALL, MOST_UNPACKED * path.stat().st_size)

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack some more.

        Raises:
            UserError: beyond the bound.
        """
        block = self.stream.read(len(buffer))
        self.count += len(block)
        if self.count > self.most:
            raise UserError(
                f"{self.path}: unpacks to more than {MOST_UNPACKED} times its size, as no data set "
                "does; if it is sound, unpack it yourself and name what comes out"
            )
        buffer[: len(block)] = block
        return len(block)


@contextmanager
def opened_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """A file as bytes, unpacked if its first bytes say that it is zipped."""
    with path.open("rb") as plain:
        head = plain.read(8)
    if what := ARCHIVES.get(head[:4]):
        raise UserError(f"{path}: is {what}; unpack it, and name what comes out")
    kind = _zipped_as(head)
    with guarded(path, "cannot be read to its end"):
        if kind is None:
            with path.open("rb") as plain:
                yield plain
            return
        with OPENERS[kind](path, "rb") as zipped:
            yield io.BufferedReader(Bounded(zipped, path), CHUNK)


def _zipped_as(head: bytes) -> str | None:
    """The suffix of files that begin so, if they are zipped."""
    return next((suffix for magic, suffix in MAGIC.items() if head.startswith(magic)), None)


def _encoding(opened: io.BufferedReader) -> str:
    """UTF-8 as a rule; UTF-16 where a mark says so, as Windows writes it."""
    head = opened.peek(2)[:2]
    return "utf-16" if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


@contextmanager
def text_lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a plain or zipped file, without the mark of byte order."""
    with (
        opened_bytes(path) as opened,
        io.TextIOWrapper(opened, encoding=_encoding(opened), errors="surrogateescape") as text,
    ):
        yield bounded_lines(text, path)


def bounded_lines(text: io.TextIOBase, path: Path) -> Iterator[str]:
    """The lines of an open file.

    Raises:
        UserError: for one that is so long that this is no text.
    """
    number = 0
    while line := text.readline(LONGEST_LINE):
        number += 1
        if len(line) >= LONGEST_LINE:
            raise UserError(
                f"{path}:{number}: must have lines of less than {LONGEST_LINE} characters; is this "
                "a text file?"
            )
        yield line


def whole_text(path: Path, most: int = SMALL) -> str:
    """All of a small text file.

    Raises:
        UserError: if it is larger than text of its kind.
    """
    with guarded(path):
        if path.stat().st_size > most:
            raise UserError(f"{path}: must have at most {most} bytes")
        with opened_bytes(path) as opened:
            encoding = _encoding(opened)
            content = opened.read(most + 1)
        if len(content) > most:
            raise UserError(f"{path}: must unpack to at most {most} bytes")
        return content.decode(encoding, errors="surrogateescape")


@contextmanager
def tar_members(path: Path, suffix: str) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """Names and contents of those files of a tar that end so, one after the other.

    The tar may be zipped; it is unpacked as a stream, up to a bound.
    """
    with opened_bytes(path) as opened, tarfile.open(fileobj=opened, mode="r|") as archive:
        yield (
            # Streams of tarfile cannot tell whether they can be sought in.
            (member.name, io.BufferedReader(Bounded(stream, path)))
            for member in archive
            if member.isfile()
            and member.name.endswith(suffix)
            and (stream := archive.extractfile(member)) is not None
        )


def is_tar(path: Path) -> bool:
    """Whether it is a tar by its name, plain or zipped."""
    return not path.is_dir() and (".tar" in path.suffixes or path.suffix in (".tgz", ".tbz2"))


def plain_suffix(path: Path) -> str:
    """The last part of a name in lower case, without that of a zipped file."""
    name = path.name.lower()
    for suffix in OPENERS:
        name = name.removesuffix(suffix)
    return Path(name).suffix


@contextmanager
def unzipped(path: Path) -> Iterator[Path]:
    """The file itself, or a plain copy: ASE jumps about in a file, which is slow in zipped ones."""
    with path.open("rb") as opened:
        kind = _zipped_as(opened.read(8))
    if kind is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / (path.stem if path.suffix.lower() in OPENERS else path.name)
        with opened_bytes(path) as source, plain.open("wb") as target:
            while block := source.read(CHUNK):
                target.write(block)
        try:
            yield plain
        except UserError as problem:
            texts = (text.replace(str(plain), str(path)) for text in problem.problems)
            raise UserError(*texts) from None


def number(word: str) -> float:
    """A finite number as programs write it: `1_0` and digits of other scripts are none.

    Raises:
        ValueError: if it is none.
    """
    if not DIGITS.fullmatch(word):
        raise ValueError(f"must have finite numbers, but got {word[:40]!r}")
    value = float(word.replace("D", "e").replace("d", "e"))
    if not math.isfinite(value):
        raise ValueError(f"must have finite numbers, but got {word[:40]!r}")
    return value


def whole(word: str) -> int:
    """A whole number that is not negative.

    Raises:
        ValueError: if it is none.
    """
    if not re.fullmatch(r"\+?\d{1,15}", word, re.ASCII):
        raise ValueError(f"must be a whole number, but got {word[:40]!r}")
    return int(word)
