"""What `python -m study.foundation` converts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study.core.atomic_io import write_bytes
from study.core.errors import UserError
from study.core.hashing import file_hash
from study.core.trust import accept, is_accepted
from study.models.packages.config import MACE
from study.models.packages.foundation import described


@dataclass(frozen=True)
class FoundationOptions:
    """What to convert, and where to put it.

    Args:
        file: as the package saved it.
        out: safetensors file, which must not exist.
        trained_on: what the records are to say of its training data.
        head: which of its heads to keep.
        trust: whether what is pickled in it may run.
    """

    file: Path
    out: Path
    trained_on: str
    head: str | None
    trust: bool


def convert(options: FoundationOptions, may_run: Callable[[str, str], bool]) -> None:
    """Write a foundation model as safetensors.

    Raises:
        UserError: if the package is missing, nobody trusts the file, or it is no such model.
    """
    if options.out.exists():
        raise UserError(f"--out {options.out}: must not exist yet; remove it, or name another file")
    if not MACE.package_version():
        raise UserError(f"needs {MACE.package}, which is not installed: `pip install -e '.[mace]'`")
    _require_trust(options.file, may_run)
    import safetensors.torch

    from study.models.packages.mace_checkpoint import converted, load_pickled

    settings, weights = converted(load_pickled(options.file), options.head, options.file)
    told = described(MACE.extra, settings.model_dump(mode="json"), options.trained_on)
    plain = {name: value.detach().contiguous() for name, value in weights.items()}
    write_bytes(options.out, safetensors.torch.save(plain, told))
    elements = ", ".join(settings.elements)
    sys.stdout.write(
        f"{options.out}  {settings.hidden} channels, {settings.layers} interactions, cutoff "
        f"{settings.cutoff:g} Å; {elements}\n"
        f"pretrain: {{from: {options.out}, package: {MACE.extra}}}\n"
    )


def _require_trust(file: Path, may_run: Callable[[str, str], bool]) -> None:
    sha256 = file_hash(file)
    if not is_accepted(sha256) and not may_run(str(file), sha256):
        raise UserError(
            f"{file}: is a pickle, which can run any code with your rights when it is read; if you "
            "trust whoever made it, add --trust"
        )
    accept(sha256, str(file))
