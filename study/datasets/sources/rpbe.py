"""The RPBE-D3 water of Morawietz et al. 2016 (doi:10.1073/pnas.1602375113), from Zenodo.

The archive holds the same structures with several density functionals; RPBE-D3 is taken. Its
SHA-256 was not known when this was written: what counts is that the frames are the published ones,
by their number, atoms and mean energy. The hash of what came is recorded beside the file.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import IO, cast

from study.core.atomic_io import rename, write_json, write_with
from study.core.errors import UserError
from study.core.hashing import file_hash
from study.datasets.frames import Frames
from study.datasets.sources.download import CHUNK, receive

ADDRESS = "https://zenodo.org/records/2634098/files/training-data_H2O.tar.gz"
SIZE = 103.8e6
"""Bytes, as Zenodo shows it."""
STRUCTURES, ATOMS = 7241, 588_648
MEAN_ENERGY = -694.4713
"""eV/atom."""
MEMBER = re.compile(r"input\.data[._-]RPBE[._-]?D3(\.gz)?", re.IGNORECASE)
"""Name of the file in the archive."""


def archive_of(root: Path) -> Path:
    """Where the archive is downloaded to, or put by hand."""
    return root / "downloads" / ADDRESS.rpartition("/")[2]


def file_of(root: Path) -> Path:
    """Where the fetched structures are."""
    return root / "downloads" / "input.data.RPBE_D3"


def fetch(root: Path, progress: Callable[[int, int], None]) -> Path:
    """Download and unpack the structures, or what is still missing of that.

    Args:
        root: folder of all work.
        progress: told how many bytes of how many are there.

    Returns:
        The file, for `bring_in`.

    Raises:
        UserError: saying what to do by hand when the download fails.
    """
    archive, file = archive_of(root), file_of(root)
    if not file.exists():
        if not archive.exists():
            rename(receive(ADDRESS, archive, int(SIZE), progress), archive)
        _check_size(archive)
        write_with(file, partial(_unpack, archive))
        _record(archive, file)
    return file


def check(frames: Frames) -> None:
    """Refuse frames other than the published ones.

    Raises:
        UserError: naming what differs.
    """
    mean = float((frames.energies / frames.sizes).mean())
    found = (len(frames), len(frames.numbers))
    # The mean is published with four digits, but not whether frames or atoms weigh the same.
    if found != (STRUCTURES, ATOMS) or abs(mean - MEAN_ENERGY) > 0.05:
        raise UserError(
            f"the RPBE-D3 set has {STRUCTURES} structures, {ATOMS} atoms and {MEAN_ENERGY} eV/atom,"
            f" but this has {found[0]}, {found[1]} and {mean:.4f}; delete the folder `downloads` "
            "and fetch it again"
        )


def _check_size(archive: Path) -> None:
    size = archive.stat().st_size
    if abs(size - SIZE) > 0.05 * SIZE:
        raise UserError(
            f"{archive}: must have about {SIZE / 1e6:.1f} MB, but has {size / 1e6:.1f} MB; delete "
            "it and fetch it again"
        )


def _unpack(archive: Path, target: Path) -> None:
    """Write the RPBE-D3 structures of the archive to `target`."""
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream) as opened:
            files = {member.name: member for member in opened if member.isfile()}
            # gzip checks its sum only at the end, where tar does not look.
            while stream.read(CHUNK):
                pass
            source = cast(IO[bytes], opened.extractfile(files[_chosen(archive, files)]))
            with target.open("wb") as written:
                shutil.copyfileobj(source, written)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as problem:
        if getattr(problem, "errno", None):
            raise  # a full disk is no fault of the archive
        raise UserError(
            f"{archive}: cannot be unpacked ({problem}); delete it and fetch it again"
        ) from None


def _chosen(archive: Path, files: Iterable[str]) -> str:
    """The one file with RPBE-D3 structures."""
    chosen = [name for name in files if MEMBER.fullmatch(Path(name).name)]
    if len(chosen) != 1:
        raise UserError(
            f"{archive}: must hold one file input.data.RPBE_D3, but holds "
            f"{', '.join(files) or 'none'}; unpack it by hand and name the file in `dataset.path`"
        )
    return chosen[0]


def _record(archive: Path, file: Path) -> None:
    """Write beside the archive what was fetched."""
    content = {
        "address": ADDRESS,
        "size": archive.stat().st_size,
        "sha256": file_hash(archive),
        "file": file.name,
        "file_sha256": file_hash(file),
    }
    write_json(archive.with_name(f"{archive.name}.json"), content)
