"""Data sets as the user names them, and how they are split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Discriminator, Field

from study.core.config import OWN, SHIPPED, Config, Own, Plugin, whose
from study.datasets.sizes import Sizes

if TYPE_CHECKING:
    from study.datasets.frames import Frames


class TIP3PWater(Config):
    """TIP3P water, simulated here with OpenMM as in arXiv:2402.15921."""

    name: Literal["tip3p_water"]
    molecules: int = Field(default=258, ge=8, le=100_000)
    """Water molecules in the box; 258 fill the 20 Å box of the paper, others its density."""
    trajectories: int = Field(default=10, ge=1, le=1000)
    """Independent simulations, each with its own seed."""
    frames: int = Field(default=1000, ge=1, le=1_000_000)
    """Frames kept of each simulation, 0.1 ps apart."""
    temperature: float = Field(default=300.0, gt=0, le=1000)
    """Thermostat, K."""
    flexible: bool = False
    """Bonds and angles swing, in steps of 0.5 fs; the paper's molecules are rigid, 2 fs."""

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return (
            f"{'flexible ' * self.flexible}TIP3P water, "
            f"{self.trajectories} × {self.frames} frames of {self.molecules} molecules"
            + (f" at {self.temperature:g} K" if self.temperature != 300 else "")
        )

    @property
    def sizes(self) -> Sizes:
        """How much it holds."""
        return Sizes(
            groups=((self.frames, self.trajectories),),
            compositions=((self.frames * self.trajectories, 1),),
            copies=((1, self.trajectories * self.frames),),
            atoms=3.0 * self.molecules,
            waters=self.molecules,
            density=3 * 258 / 20.0**3,
        )


class RPBEWater(Config):
    """RPBE-D3 water and ice of Morawietz et al. 2016, the paper's other data set."""

    name: Literal["rpbe_water"]
    path: str | None = Field(default=None, min_length=1)
    """Its n2p2 file, relative to the current folder; the one that `python -m study.data fetch rpbe`
    brought when left out."""

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return "RPBE-D3 water" + (f" from {self.path}" if self.path else "")

    @property
    def sizes(self) -> None:
        """Not known before the file is read."""


class Stored(Config):
    """What lies on a disk, in the format of another program."""

    name: str
    path: str = Field(min_length=1)
    """The file or folder, relative to the current folder."""

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return self.path

    @property
    def sizes(self) -> None:
        """Not known before it is read."""


class N2P2File(Stored):
    """Any `input.data` of RuNNer or n2p2, plain or gzipped."""

    name: Literal["n2p2_file"]


class ASEFile(Stored):
    """Any file that ASE reads with energies and forces: extxyz, database, trajectory, or .gz."""

    name: Literal["ase_file"]


class DeePMDFolder(Stored):
    """A folder of DeePMD-kit's npy systems; frames of one system are one group."""

    name: Literal["deepmd_npy"]


class GAMDFolder(Stored):
    """A folder of GAMD's water frames, `data_SEED_FRAME.npz`; frames of one seed are one group."""

    name: Literal["gamd_npz"]


class MD17Files(Stored):
    """MD17, rMD17 or MD22: a file of a molecule or a folder of them, each of which is one group."""

    name: Literal["md17_npz"]


class ANI1File(Stored):
    """ANI-1 (doi:10.1038/sdata.2017.193) in HDF5, energies only; a molecule is one group."""

    name: Literal["ani1_hdf5"]


class ANI1xFile(Stored):
    """ANI-1x (doi:10.1038/s41597-020-0473-z) in HDF5; conformers of one formula are one group."""

    name: Literal["ani1x_hdf5"]


class SPICEFile(Stored):
    """SPICE (arXiv:2209.10702) in HDF5; conformers of one molecule are one group."""

    name: Literal["spice_hdf5"]


class QM9XYZ(Stored):
    """QM9's xyz files with their 12 targets: a folder of them, or their tar; no forces."""

    name: Literal["qm9_xyz"]


class SDFile(Stored):
    """Molecules of an SDF with the table beside it: QM9's or PCQM4Mv2's; no forces."""

    name: Literal["sdf_file"]


class PCQM4Mv2Folder(Stored):
    """A folder of PCQM4Mv2's xyz files, with hydrogens; the table is beside it; no forces."""

    name: Literal["pcqm4mv2_xyz"]


class DimerFile(Stored):
    """DES15K, DES370K or DES5M: a csv of dimers with interaction energies; no forces."""

    name: Literal["dimers_csv"]


class ISO17Within(Stored):
    """ISO17's folder, tested on other steps of the molecules that train."""

    name: Literal["iso17_within"]


class ISO17Other(Stored):
    """ISO17's folder, tested on other molecules than those that train."""

    name: Literal["iso17_other"]


class OC20Folder(Stored):
    """A folder of OC20's frames with energy and forces: *.extxyz with *.txt."""

    name: Literal["oc20_folder"]


class OwnDataset(Own):
    """A data set of one's own: a class derived from `study.plugins.DataSet`, with its settings."""

    @property
    def sizes(self) -> None:
        """Not known before it is made."""


Shipped = Annotated[
    TIP3PWater
    | RPBEWater
    | N2P2File
    | ASEFile
    | DeePMDFolder
    | GAMDFolder
    | MD17Files
    | ANI1File
    | ANI1xFile
    | SPICEFile
    | QM9XYZ
    | SDFile
    | PCQM4Mv2Folder
    | DimerFile
    | ISO17Within
    | ISO17Other
    | OC20Folder,
    Field(discriminator="name"),
]

DatasetConfig = Annotated[
    Annotated[Shipped, SHIPPED] | Annotated[OwnDataset, OWN], Discriminator(whose)
]


class DataSet(Plugin):
    """Settings of a data set."""

    name: str

    def build(self) -> Frames:
        """Read or make all frames; equal settings give equal frames."""
        raise NotImplementedError
