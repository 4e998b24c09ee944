"""On-disk cache of compiled programs, shared between all processes of one user.

A program is code that runs here, in part as pickle. So it lies in a private folder of the user, and
never among results, which may be handed over.

The parts of Inductor's private interface that this needs are named and tested in
tests/training/test_program_cache.py.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch._inductor import config as inductor
from torch._inductor.runtime.cache_dir_utils import cache_dir
from torch._inductor.standalone_compile import CompiledArtifact
from torch._inductor.utils import fresh_cache

from study.core.atomic_io import (
    DamagedFileError,
    discard,
    lock_of,
    owned_by_current_user,
    read_hashed,
    remove,
    write_hashed,
)
from study.core.hashing import code_version, digest, own_version
from study.core.paths import private_folder
from study.models.potential import Potential
from study.tasks.task import Term
from study.training.compiler import (
    KERNELS_IN_ONE_FILE,
    Layout,
    Program,
    compile_program,
    size_classes,
    tensors_of,
    varying_sizes,
    weights_of,
)
from study.training.precision import Precision

LAYOUT, CODE = "layout.json", "code"
"""Names of the layout and of the code in a stored program, beside its kernels."""
BUILT = (".so", ".o")
"""What a compiler has made. Inductor compiles anew where one of these files is missing."""

UNUSED = 30 * 24 * 3600
"""Seconds without use after which a program is deleted."""


def user_store() -> Path | None:
    """The folder of compiled programs; none where no folder can be private."""
    return private_folder("compiled")


def load_or_compile(
    model: Potential, term: Term, store: Path | None, precision: Precision = "float32"
) -> Program:
    """Load the program for a model and the sizes of a term, or compile and store it.

    One process compiles; others that need the same program wait for it. Without a store each
    compiles for itself.
    """
    if store is None:
        with fresh_cache():
            return compile_program(model, term)
    key = _key(model, term, precision)
    with lock_of(store / f"{key}.lock"), _building(store / f"{key}.building") as empty:
        for path in filter(owned_by_current_user, store.glob(f"{key}-*.zip")):
            try:
                program = _unpack(read_hashed(path), empty)
            except DamagedFileError:
                discard(path, "it is recompiled")
            else:
                os.utime(path)
                return program
        # Inductor does not verify the files in its own cache.
        with fresh_cache(dir=empty):
            program = compile_program(model, term)
            # On a full disk other processes have to compile, too.
            with suppress(OSError):
                write_hashed(store, key, ".zip", _pack(program))
        _delete_unused(store)
        return program


@contextmanager
def _building(folder: Path) -> Iterator[str | None]:
    """Make a folder for Inductor's files, and remove it, and also what a killed process left there.

    Yields:
        The folder; none if the disk refuses it, so that they lie among the temporary files.
    """
    shutil.rmtree(folder, ignore_errors=True)
    made = None
    with suppress(OSError):
        folder.mkdir()
        made = str(folder)
    try:
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _delete_unused(store: Path) -> None:
    oldest = time.time() - UNUSED
    for path in store.glob("*.zip"):
        with suppress(FileNotFoundError):  # another process deletes, too
            if path.stat().st_mtime < oldest:
                remove(path)


def _key(model: Potential, term: Term, precision: Precision) -> str:
    """Hash of everything that the compiled code depends on."""
    device = next(model.parameters()).device
    return digest(
        {
            "model": vars(model.settings),
            "training": model.training,
            "learning": [weights.requires_grad for weights in model.parameters()],
            "weights": [(list(w.shape), str(w.dtype)) for w in weights_of(model)],
            "penalty": term.name,
            "precision": precision,
            "own": [own_version(type(model)), own_version(term.penalty)],
            "batch": [(name, str(value.dtype)) for name, value in tensors_of(term.batch).items()],
            "sizes": size_classes(varying_sizes(term.batch)),
            "code": code_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cpu": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
    )[:20]


def _pack(program: Program) -> bytes:
    """Pack a program as a zip file with the kernels that Inductor has just built for it."""
    packed = io.BytesIO()
    with (
        tempfile.TemporaryDirectory(dir=cache_dir()) as folder,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr(LAYOUT, json.dumps(asdict(program.layout)))
        code = Path(folder) / CODE
        program.code.save(path=str(code), format="binary")
        archive.write(code, CODE)
        for path in sorted(Path(cache_dir()).rglob("*.*o")):
            if path.suffix in BUILT:
                archive.write(path, path.relative_to(cache_dir()))
    return packed.getvalue()


def _unpack(content: bytes, empty: str | None = None) -> Program:
    """Unpack a program from a zip file; loaded kernels outlive their files."""
    with (
        zipfile.ZipFile(io.BytesIO(content)) as archive,
        inductor.patch(_options_of(archive)),
        fresh_cache(dir=empty),
    ):
        archive.extractall(cache_dir())
        path = Path(cache_dir()) / CODE
        layout = Layout(**json.loads(archive.read(LAYOUT)))
        return Program(CompiledArtifact.load(path=str(path), format="binary"), layout)


def _options_of(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Inductor's options for loading a program; those of a GPU have no object files."""
    of_cpu = any(name.endswith(".o") for name in archive.namelist())
    return KERNELS_IN_ONE_FILE if of_cpu else {}
