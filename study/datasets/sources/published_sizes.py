"""How much published data sets hold, for estimates before they are downloaded.

Numbers of frames are those that the publishers state; numbers of atoms are means, to about a tenth.
Nothing but estimates rests on them: once a set has been read, its own numbers count.
"""

from __future__ import annotations

from pathlib import PurePath

from study.datasets.config import DatasetConfig
from study.datasets.sizes import Sizes

WATER = 3 * 258 / 20.0**3
"""Atoms per Å³."""
SLAB = 0.05
"""The same of a slab with what is adsorbed on it, vacuum left out."""

MOLECULES = {
    "qm9_xyz": (130_831, 18.0),
    "pcqm4mv2_xyz": (3_378_606, 30.0),
    "ani1_hdf5": (22_057_374, 17.0),
    "ani1x_hdf5": (4_956_005, 15.3),
    "spice_hdf5": (2_008_628, 29.0),
    "dimers_csv": (14_651, 17.0),
}
"""Frames, atoms a frame. QM9 without those molecules that failed, dimers as in DES15K."""
MD17 = {
    "md22_Ac-Ala3-NHMe": (85_109, 42.0),
    "md22_DHA": (69_753, 56.0),
    "md22_stachyose": (27_272, 87.0),
    "md22_AT-AT": (20_001, 60.0),
    "md22_AT-AT-CG-CG": (10_153, 118.0),
    "md22_buckyball-catcher": (6_102, 148.0),
    "md22_dw_nanotube": (5_032, 370.0),
    "rmd17_aspirin": (100_000, 21.0),
    "rmd17_ethanol": (100_000, 9.0),
}
"""The same, by the file's name."""
ISO17 = (400_000, 4_000, 130_000)
"""Frames of 19 atoms that train, validate and test."""
PERIODIC = {"rpbe_water": (7241, 81.3, WATER), "oc20_folder": (200_000, 73.0, SLAB)}
"""Frames, atoms a frame, atoms per Å³. OC20's part of 200,000 frames."""


def published_sizes(dataset: DatasetConfig) -> Sizes | None:
    """How much a published set holds; none if it is another."""
    if dataset.name in PERIODIC:
        return _sizes(*PERIODIC[dataset.name])
    if dataset.name == "iso17_other":
        return _sizes(sum(ISO17), 19.0, published=ISO17)
    if dataset.name == "md17_npz":
        stem = PurePath(getattr(dataset, "path", "")).stem
        return _sizes(*MD17[stem]) if stem in MD17 else None
    return _sizes(*MOLECULES[dataset.name]) if dataset.name in MOLECULES else None


def _sizes(
    frames: int,
    atoms: float,
    density: float | None = None,
    published: tuple[int, ...] = (0, 0, 0),
) -> Sizes:
    """Frames that are all different; molecules in vacuum unless they have a density."""
    alone = ((1, frames),)
    return Sizes(
        groups=alone,
        copies=alone,
        compositions=alone,
        atoms=atoms,
        waters=0,
        density=density or WATER,
        published=published,
        others=None if density else atoms - 1,
    )
