"""OC20's frames for structure to energy and forces as LMDB, which its own training reads.

A file `data.NNNN.lmdb` holds a pickled `torch_geometric.data.Data` under each of the keys 0, 1, …,
as `scripts/preprocess_ef.py` of github.com/FAIR-Chem/fairchem writes it: `pos` (N, 3) Å,
`atomic_numbers` (N,), `cell` (1, 3, 3) Å, `y` eV and `force` (N, 3) eV/Å, in later versions
`energy` and `forces`; test sets have neither. The energy is that of adsorption if the file was made
with `--ref-energy`, the total otherwise. The frames of one `sid` are a group, or else those of one
system in `data_log.NNNN.txt` beside the file. Marks of fixed atoms, and tags, are not kept.

Unpickling can run any code. So no class of a file is imported: what such files need has a stand-in
here that holds values and does nothing, and anything else is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError, one_line
from study.datasets.readers import ase_file

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]


def files_of(path: Path) -> list[Path]:
    """The LMDB files of a folder or below it."""
    return sorted(path.rglob("*.lmdb"))


def structures(file: Path) -> list[Atoms]:
    """All frames of a file, in the order of their keys.

    Raises:
        UserError: one line that names file, key and rule.
    """
    made = []
    for key, pickled in _entries(file):
        where = f"{file}: entry {key}"
        try:
            frame = _structure(_values(pickled))
        # A malformed pickle makes Python, numpy and torch stumble over whatever comes.
        except Exception as problem:
            raise UserError(f"{where}: cannot be read ({one_line(problem)})") from None
        ase_file.require_whole(frame, where)
        made.append(frame)
    _name_groups(made, file)
    return made


def _entries(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        lmdb = import_module("lmdb")
    except ImportError as problem:
        raise UserError(f"{file}: is read with lmdb ({problem}); pip install lmdb") from None
    try:
        # Without a lock nothing is written beside the file.
        opened = lmdb.open(str(file), subdir=False, readonly=True, lock=False)
        with opened, opened.begin() as transaction:
            # Reading on where a file ends would end this process.
            whole = (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
            if file.stat().st_size < whole:
                raise UserError(
                    f"{file}: must have {whole} bytes, but has {file.stat().st_size}; it was cut "
                    "off: get it again"
                )
            keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
            # `length` is how many there are.
            for number in sorted(int(key) for key in keys if key.isdigit()):
                yield number, transaction.get(b"%d" % number)
    except lmdb.Error as problem:
        reason = f"{problem}".removeprefix(f"{file}: ")
        raise UserError(f"{file}: is no whole LMDB file ({reason})") from None


def _structure(values: dict[str, Any]) -> Atoms:
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    numbers = _array(values["atomic_numbers"])
    if not np.isin(numbers, np.arange(1, 119)).all():
        raise ValueError("atomic_numbers must be 1 to 118")
    frame = Atoms(
        numbers=numbers.astype(int),
        positions=_array(values["pos"]),
        cell=_array(values["cell"]).reshape(3, 3),
        pbc=True,
    )
    labels: dict[str, Any] = {}
    energy = values.get("y", values.get("energy"))
    if energy is not None:
        labels["energy"] = float(_array(energy).item())
    forces = values.get("force", values.get("forces"))
    if forces is not None:
        labels["forces"] = _array(forces)
    if labels:
        frame.calc = SinglePointCalculator(frame, **labels)  # type: ignore[no-untyped-call]
    if "sid" in values:
        sid = values["sid"]
        frame.info["group"] = sid if isinstance(sid, str) else str(int(_array(sid).item()))
    return frame


def _array(value: Any) -> Array:
    return np.asarray(value, dtype=np.float64)


def _name_groups(frames: list[Atoms], file: Path) -> None:
    """Take the systems from the list beside the file, if its frames do not name them."""
    log = file.with_name(f"data_log.{file.stem.removeprefix('data.')}.txt")
    if any("group" in frame.info for frame in frames) or not log.is_file():
        return
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    if len(lines) != len(frames):
        raise UserError(
            f"{log}: must have a line for each of {len(frames)} frames, but has {len(lines)}"
        )
    for frame, line in zip(frames, lines, strict=True):
        frame.info["group"] = line.partition(",")[0]


class _Object:
    """Attributes of an object, whatever its class and methods are."""


class _Dtype:
    """A type of numpy's numbers.

    Args:
        name: such as f8; its bytes are little-endian, as on every machine that has written OC20.
    """

    def __init__(self, name: str, *_flags: bool) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and layout, which numbers have by their name."""


def _number(dtype: _Dtype, raw: bytes) -> float:
    """A single number of numpy's."""
    if dtype.name not in ("f4", "f8", "i4", "i8"):
        raise pickle.UnpicklingError(f"must hold numbers, but has a {dtype.name}")
    return float(np.frombuffer(raw, f"<{dtype.name}").item())


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_rest: Any) -> Any:
    """A tensor without a gradient, and without hooks."""
    rebuild = import_module("torch._utils")._rebuild_tensor_v2
    return rebuild(storage, offset, size, stride, requires_grad=False, backward_hooks={})


def _storage(raw: bytes) -> Any:
    """The numbers of a tensor, which are a small file of torch's in themselves."""
    torch = import_module("torch")
    try:
        return torch.load(io.BytesIO(raw), weights_only=True)
    except pickle.UnpicklingError:
        raise pickle.UnpicklingError("a tensor must hold numbers alone") from None


STAND_INS: dict[tuple[str, str], Any] = {
    ("torch_geometric.data.data", "Data"): _Object,
    ("torch_geometric.data.data", "DataEdgeAttr"): _Object,
    ("torch_geometric.data.data", "DataTensorAttr"): _Object,
    ("torch_geometric.data.storage", "GlobalStorage"): _Object,
    ("collections", "OrderedDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
}
"""By module and name in a pickle."""


class _Unpickler(pickle.Unpickler):
    """Makes nothing but stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        """What is made in place of a class or function.

        Raises:
            pickle.UnpicklingError: if such files need none of that name.
        """
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(
                f"must hold tensors and plain values alone, but asks for {module}.{name}, which "
                "was not run; trust no such file"
            )
        return STAND_INS[module, name]


def _values(pickled: bytes) -> dict[str, Any]:
    """Attributes of a `Data`: since torch-geometric 2.0 they lie in the mapping of its storage."""
    state = vars(_Unpickler(io.BytesIO(pickled)).load())
    if "_store" in state:
        state = vars(state["_store"])["_mapping"]
    return {name: value for name, value in state.items() if value is not None}
