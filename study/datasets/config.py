"""Data sets as the user names them, and how they are split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag

from study.core.config import Own, any_of
from study.datasets.base_config import DatasetConfig as DatasetConfig
from study.datasets.reading import Named, Stored, Typed
from study.datasets.sizes import Sizes


def _seed_kind(value: object) -> str:
    """Tag of the kind of a seed."""
    return "<word>" if isinstance(value, str) else "<number>"


DatasetSeed = Annotated[
    Annotated[int, Field(ge=0, lt=2**31), Tag("<number>")]
    | Annotated[Literal["trial"], Tag("<word>")],
    Discriminator(_seed_kind),
]
"""A seed of a simulated data set, or that of each trial."""


class TIP3PWater(DatasetConfig):
    """TIP3P water, simulated here with OpenMM as in arXiv:2402.15921."""

    maker = "study.datasets.sources.simulated"
    simulated = True

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
    seed: DatasetSeed = 0
    """Of all simulations; `trial` simulates an independent set for every seed of the study."""

    def of_trial(self, seed: int) -> Self:
        """What the trial with this seed uses: one set for all, or one for each."""
        return self if self.seed != "trial" else self.model_copy(update={"seed": seed})

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return (
            f"{'flexible ' * self.flexible}TIP3P water, "
            f"{self.trajectories} × {self.frames} frames of {self.molecules} molecules"
            + (f" at {self.temperature:g} K" if self.temperature != 300 else "")
            + (f", seed {self.seed}" if self.seed else "")
        )

    @property
    def rigid(self) -> bool:
        """Unless bonds and angles swing."""
        return not self.flexible

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
            elements=(1, 8),
        )


class RPBEWater(Stored):
    """RPBE-D3 water and ice of Morawietz et al. 2016, the paper's other data set."""

    reader: ClassVar[str] = "study.datasets.readers.n2p2:read"
    fetched: ClassVar[str] = "study.datasets.sources.rpbe"
    """Module that knows where the fetched file is, and what must be in it."""

    name: Literal["rpbe_water"]
    path: str | None = Field(default=None, min_length=1)  # type: ignore[assignment]
    """Its n2p2 file, relative to the space's folder; the one that `python -m study.data fetch rpbe`
    brought when left out."""

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return "RPBE-D3 water" + (f" from {super().label}" if self.path else "")


class DeePMDFolder(Typed):
    """A folder of DeePMD-kit's systems; frames of one system are one group."""

    reader: ClassVar[str] = "study.datasets.readers.deepmd:read"
    recognizer: ClassVar[str] = "study.datasets.readers.deepmd:holds_systems"
    place: ClassVar[Literal["file", "folder", "either"]] = "folder"
    name: Literal["deepmd_npy"]


class GAMDFolder(Stored):
    """A folder of GAMD's water frames, `data_SEED_FRAME.npz`; frames of one seed are one group."""

    reader: ClassVar[str] = "study.datasets.readers.gamd:read"
    recognizer: ClassVar[str] = "study.datasets.readers.gamd:holds_frames"
    place: ClassVar[Literal["file", "folder", "either"]] = "folder"
    name: Literal["gamd_npz"]


class MD17Files(Named):
    """MD17, rMD17, MD22, sGDML or PhysNet: a file or a folder of them, each of which is a group."""

    reader: ClassVar[str] = "study.datasets.readers.md17:read"
    recognizer: ClassVar[str] = "study.datasets.readers.md17:holds_molecules"
    place: ClassVar[Literal["file", "folder", "either"]] = "either"
    name: Literal["md17_npz"]


class ISO17Other(Named):
    """ISO17's folder, tested on other molecules than those that train."""

    reader: ClassVar[str] = "study.datasets.readers.iso17:read_other"
    recognizer: ClassVar[str] = "study.datasets.readers.iso17:holds_reference"
    place: ClassVar[Literal["file", "folder", "either"]] = "folder"
    name: Literal["iso17_other"]


class ISO17Within(Named):
    """ISO17's folder, tested on other steps of the molecules that train."""

    reader: ClassVar[str] = "study.datasets.readers.iso17:read_within"
    place: ClassVar[Literal["file", "folder", "either"]] = "folder"
    name: Literal["iso17_within"]


class QM9XYZ(Stored):
    """QM9's xyz files with their 12 targets: a folder of them, their tar, or one; no forces."""

    reader: ClassVar[str] = "study.datasets.readers.qm9:read_qm9"
    recognizer: ClassVar[str] = "study.datasets.readers.qm9:recognizes"
    beside: ClassVar[str] = "study.datasets.readers.qm9:read_beside"
    place: ClassVar[Literal["file", "folder", "either"]] = "either"
    name: Literal["qm9_xyz"]


class PCQM4Mv2Folder(Stored):
    """A folder of PCQM4Mv2's xyz files, with hydrogens; the table is beside it; no forces."""

    reader: ClassVar[str] = "study.datasets.readers.molecule_sets:read_pcqm4mv2"
    recognizer: ClassVar[str] = "study.datasets.readers.molecule_sets:holds_pcqm4mv2"
    beside: ClassVar[str] = "study.datasets.readers.molecule_sets:table_beside"
    place: ClassVar[Literal["file", "folder", "either"]] = "folder"
    name: Literal["pcqm4mv2_xyz"]


class OC20Folder(Named):
    """A folder of OC20's frames with energy and forces, *.extxyz with *.txt."""

    reader: ClassVar[str] = "study.datasets.readers.oc20:read"
    recognizer: ClassVar[str] = "study.datasets.readers.oc20:holds_frames"
    place: ClassVar[Literal["file", "folder", "either"]] = "folder"
    name: Literal["oc20_folder"]


class ANI1xFile(Named):
    """ANI-1x (doi:10.1038/s41597-020-0473-z) in HDF5; conformers of one formula are one group."""

    reader: ClassVar[str] = "study.datasets.readers.hdf5:read_ani1x"
    recognizer: ClassVar[str] = "study.datasets.readers.hdf5:is_ani1x"
    pieces: ClassVar[str] = "study.datasets.readers.hdf5:PIECES"
    name: Literal["ani1x_hdf5"]


class SPICEFile(Named):
    """SPICE (arXiv:2209.10702) in HDF5; conformers of one molecule are one group."""

    reader: ClassVar[str] = "study.datasets.readers.hdf5:read_spice"
    recognizer: ClassVar[str] = "study.datasets.readers.hdf5:is_spice"
    pieces: ClassVar[str] = "study.datasets.readers.hdf5:PIECES"
    name: Literal["spice_hdf5"]


class ANI1File(Named):
    """ANI-1 (doi:10.1038/sdata.2017.193) or its like in HDF5; a molecule is one group."""

    reader: ClassVar[str] = "study.datasets.readers.hdf5:read_ani1"
    recognizer: ClassVar[str] = "study.datasets.readers.hdf5:is_ani1"
    pieces: ClassVar[str] = "study.datasets.readers.hdf5:PIECES"
    place: ClassVar[Literal["file", "folder", "either"]] = "either"
    name: Literal["ani1_hdf5"]


class N2P2File(Stored):
    """Any `input.data` of RuNNer or n2p2, plain or zipped."""

    reader: ClassVar[str] = "study.datasets.readers.n2p2:read"
    recognizer: ClassVar[str] = "study.datasets.readers.n2p2:holds_structures"
    name: Literal["n2p2_file"]


class SDFile(Stored):
    """Molecules of an SDF with the table beside it: QM9's or PCQM4Mv2's; no forces."""

    reader: ClassVar[str] = "study.datasets.readers.molecule_sets:read_sdf"
    recognizer: ClassVar[str] = "study.datasets.readers.molecule_sets:is_sdf"
    beside: ClassVar[str] = "study.datasets.readers.molecule_sets:beside_sdf"
    name: Literal["sdf_file"]


class DimerFile(Stored):
    """DES15K, DES370K or DES5M: a csv of dimers with interaction energies; no forces."""

    reader: ClassVar[str] = "study.datasets.readers.molecule_sets:read_dimers"
    recognizer: ClassVar[str] = "study.datasets.readers.molecule_sets:is_csv"
    name: Literal["dimers_csv"]


class ASEFile(Typed):
    """Whatever ASE reads: extxyz, database, trajectory, output, LAMMPS dump; or a folder of it."""

    reader: ClassVar[str] = "study.datasets.readers.ase_file:read"
    recognizer: ClassVar[str] = "study.datasets.readers.ase_file:may_read"
    pieces: ClassVar[str] = "study.datasets.readers.atoms.xyz_pieces:PIECES"
    place: ClassVar[Literal["file", "folder", "either"]] = "either"
    name: Literal["ase_file"]


class OwnDataset(Own, DatasetConfig):
    """A data set of one's own: a class derived from `study.plugins.DatasetConfig`, its keys."""

    model_config = ConfigDict(extra="allow")


if TYPE_CHECKING:
    AnyDataset = DatasetConfig
else:
    AnyDataset = any_of(DatasetConfig, OwnDataset)
"""Settings of any data set; a file is asked which of them it is in the order of the classes."""
