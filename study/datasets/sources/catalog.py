"""Published data sets: where they are, what is known of their files, and how a space names them.

Sizes and checksums are those that the publishers, or several independent users of the same file,
state; where none are stated, none are here, and what came is recorded with its SHA-256.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core.atomic_io import make_folder, remove, rename, write_json
from study.core.errors import UserError
from study.datasets.sources.download import Source, fetch

GDML = "http://quantum-machine.org/gdml/data/npz"
FIGSHARE = "https://ndownloader.figshare.com/files"
OGB = "http://ogb-data.stanford.edu/data/lsc"
OC20 = "https://dl.fbaipublicfiles.com/opencatalystproject/data"
MD17 = {
    "aspirin": "md17_aspirin",
    "azobenzene": "azobenzene_dft",
    "benzene": "md17_benzene2017",
    "ethanol": "md17_ethanol",
    "malonaldehyde": "md17_malonaldehyde",
    "naphthalene": "md17_naphthalene",
    "paracetamol": "paracetamol_dft",
    "salicylic": "md17_salicylic",
    "toluene": "md17_toluene",
    "uracil": "md17_uracil",
}
MD22 = {
    "Ac-Ala3-NHMe": "md22_Ac-Ala3-NHMe",
    "AT-AT": "md22_AT-AT",
    "AT-AT-CG-CG": "md22_AT-AT-CG-CG",
    "buckyball-catcher": "md22_buckyball-catcher",
    "DHA": "md22_DHA",
    "nanotube": "md22_dw_nanotube",
    "stachyose": "md22_stachyose",
}
OC20_PARTS = {
    "200k": ("train_200K", "200,000", "f8d0909c2623a393148435dede7d3a46"),
    "2m": ("train_2M", "2 million", ""),
    "val_id": ("val_id", "999,866 validation", "f57f7f5c1302637940f2cc858e789410"),
    "val_ood_ads": ("val_ood_ads", "999,838 validation", "431ab0d7557a4639605ba8b67793f053"),
    "val_ood_cat": ("val_ood_cat", "999,809 validation", "532d6cd1fe541a0ddb0aa0f99962b7db"),
    "val_ood_both": ("val_ood_both", "999,944 validation", "5731862978d80502bbf7017d68c2c729"),
}
"""Files, frames and checksums, as github.com/FAIR-Chem/fairchem states them; of `train_2M` it has
stated two. With labels only these extxyz files are published."""


@dataclass(frozen=True)
class Published:
    """A data set that can be fetched.

    Args:
        title: what it is.
        licence: its terms, or where they stand.
        dataset: its name in a space.
        path: of what a space names, below the set's folder.
        sources: its files; none where no address is known to last.
        archives: names of those files that are unpacked.
    """

    title: str
    licence: str
    dataset: str
    path: str
    sources: tuple[Source, ...]
    archives: tuple[str, ...] = ()


SETS = (
    {
        "qm9": Published(
            "QM9, 133,885 molecules with 12 properties (doi:10.1038/sdata.2014.22)",
            "CC0",
            "qm9_xyz",
            "dsgdb9nsd.xyz.tar.bz2",
            (
                Source(f"{FIGSHARE}/3195389", "dsgdb9nsd.xyz.tar.bz2"),
                Source(f"{FIGSHARE}/3195404", "uncharacterized.txt"),
            ),
        ),
        "pcqm4mv2": Published(
            "PCQM4Mv2, 3,378,606 molecules with their gap, without hydrogens (arXiv:2103.09430)",
            "CC BY 4.0",
            "sdf_file",
            "pcqm4m-v2-train.sdf.tar.gz",
            (
                Source(
                    f"{OGB}/pcqm4m-v2-train.sdf.tar.gz",
                    "pcqm4m-v2-train.sdf.tar.gz",
                    1_559_712_928,
                    "fd72bce606e7ddf36c2a832badeec6ab",
                ),
                Source(f"{OGB}/pcqm4m-v2.zip", "pcqm4m-v2.zip"),
            ),
            ("pcqm4m-v2.zip",),
        ),
        "pcqm4mv2_xyz": Published(
            "PCQM4Mv2 with hydrogens, as first published (arXiv:2103.09430)",
            "CC BY 4.0",
            "pcqm4mv2_xyz",
            "pcqm4m-v2_xyz",
            (
                Source(f"{OGB}/pcqm4m-v2_xyz.zip", "pcqm4m-v2_xyz.zip"),
                Source(f"{OGB}/pcqm4m-v2.zip", "pcqm4m-v2.zip"),
            ),
            ("pcqm4m-v2_xyz.zip", "pcqm4m-v2.zip"),
        ),
        "rmd17": Published(
            "rMD17, ten molecules of MD17 computed anew (arXiv:2007.09593)",
            "see https://doi.org/10.6084/m9.figshare.12672038",
            "md17_npz",
            "rmd17/npz_data",
            (Source(f"{FIGSHARE}/23950376", "rmd17.tar.bz2"),),
            ("rmd17.tar.bz2",),
        ),
        "ani1": Published(
            "ANI-1, 22 million conformers with energies (doi:10.1038/sdata.2017.193)",
            "see https://doi.org/10.1038/sdata.2017.193",
            "ani1_hdf5",
            "ANI-1_release",
            (Source(f"{FIGSHARE}/9057631", "ANI1_release.tar.gz"),),
            ("ANI1_release.tar.gz",),
        ),
        "ani1x": Published(
            "ANI-1x, 5 million conformers (doi:10.1038/s41597-020-0473-z)",
            "see https://doi.org/10.1038/s41597-020-0473-z",
            "ani1x_hdf5",
            "ani1x-release.h5",
            (
                Source(
                    f"{FIGSHARE}/18112775",
                    "ani1x-release.h5",
                    md5="98090dd6679106da861f52bed825ffb7",
                ),
            ),
        ),
        "spice": Published(
            "SPICE 2.0.1 (arXiv:2209.10702)",
            "see https://zenodo.org/records/10975225",
            "spice_hdf5",
            "SPICE-2.0.1.hdf5",
            (
                Source(
                    "https://zenodo.org/records/10975225/files/SPICE-2.0.1.hdf5",
                    "SPICE-2.0.1.hdf5",
                    37_479_271_148,
                    "bfba2224b6540e1390a579569b475510",
                ),
            ),
        ),
        "iso17": Published(
            "ISO17, dynamics of 129 isomers of C7O2H10 (arXiv:1706.08566)",
            "see http://quantum-machine.org/datasets/",
            "iso17_other",
            "iso17",
            (Source("http://quantum-machine.org/datasets/iso17.tar.gz", "iso17.tar.gz"),),
            ("iso17.tar.gz",),
        ),
        "des370k": Published(
            "DES370K, 370,959 dimers with CCSD(T) energies (doi:10.1038/s41597-021-00833-x)",
            "CC BY 4.0 with the notice that the archive holds (doi:10.5281/zenodo.5676266)",
            "dimers_csv",
            "DES370K.csv",
            (
                Source(
                    "https://zenodo.org/records/5676266/files/DES370K.zip",
                    "DES370K.zip",
                    262_493_084,
                    "b2b2bf8bc0dd436cfc1ab159d86421fd",
                ),
            ),
            ("DES370K.zip",),
        ),
        "des15k": Published(
            "DES15K, 14,651 dimers; in the supplement of doi:10.1038/s41597-021-00833-x",
            "see https://doi.org/10.1038/s41597-021-00833-x",
            "dimers_csv",
            "DES15K.csv",
            (),
        ),
    }
    | {
        f"oc20_{part}": Published(
            f"OC20, {frames} frames of adsorption on slabs (arXiv:2010.09990)",
            "CC BY 4.0",
            "oc20_folder",
            f"s2ef_{file}",
            (Source(f"{OC20}/s2ef_{file}.tar", f"s2ef_{file}.tar", md5=md5),),
            (f"s2ef_{file}.tar",),
        )
        for part, (file, frames, md5) in OC20_PARTS.items()
    }
    | {
        f"{family}_{molecule}": Published(
            f"{family.upper()}, {molecule} (http://www.sgdml.org/#datasets)",
            "see http://www.sgdml.org/#datasets",
            "md17_npz",
            f"{file}.npz",
            (Source(f"{GDML}/{file}.npz", f"{file}.npz"),),
        )
        for family, files in (("md17", MD17), ("md22", MD22))
        for molecule, file in files.items()
    }
)
"""By the name that `python -m study.data fetch` takes."""


def bring(name: str, root: Path, progress: Callable[[int, int], None]) -> Path:
    """Download and unpack a set, or what is still missing of that.

    Args:
        name: one of `SETS`.
        root: folder of all work; downloads are in its `downloads`.
        progress: told how many bytes of how many are there.

    Returns:
        What a space names.

    Raises:
        UserError: if a file cannot be had or is not the published one.
    """
    published, folder = SETS[name], root / "downloads" / name
    place = folder / published.path
    if not published.sources and not place.exists():
        raise UserError(
            f"{name}: no address that lasts is known for it; download it by hand "
            f"({published.title}) and put it at {place}"
        )
    for source in published.sources:
        record = folder / f"{source.name}.json"
        if record.exists() and (folder / source.name).exists():
            continue
        file = fetch(source, folder, progress)
        if source.name in published.archives:
            _unpack(file, folder)
        found = {"address": source.address, "size": file.stat().st_size, "sha256": _sha256(file)}
        write_json(record, found)
    if not place.exists():
        raise UserError(
            f"{folder}: must hold {published.path} after unpacking, but does not; delete this "
            "folder, and fetch the set again"
        )
    return place


DAMAGED = (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError)
"""What unpacking raises of an archive that is not whole."""


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside the archive; what has its name there was unpacked to its end."""
    partial = folder / f"{archive.name}.unpacking"
    remove(partial)
    make_folder(partial)
    # Of a zip members elsewhere are left out as it is, and links are plain files.
    safe: dict[str, Any] = {} if archive.suffix == ".zip" else {"filter": "data"}
    try:
        shutil.unpack_archive(archive, partial, **safe)
    except DAMAGED as problem:
        remove(partial)
        if getattr(problem, "errno", None):
            raise  # a full disk is no fault of the archive
        raise UserError(
            f"{archive}: cannot be unpacked ({problem}); delete it, and fetch it again"
        ) from None
    for part in partial.iterdir():
        if not (folder / part.name).exists():
            rename(part, folder / part.name)
    remove(partial)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
