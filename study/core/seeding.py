"""Random generators seeded by their purpose, independent of what ran before."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seeded(*purpose: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator seeded by a hash of `purpose`, such as (seed, "order", epoch)."""
    # Importing torch takes longer than what most importers of this module do.
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*purpose))


def seed_of(*purpose: int | str) -> int:
    """Hash `purpose` to a seed of 63 bits."""
    name = "\x1f".join(map(str, purpose)).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
