"""Random generators seeded by their purpose, independent of what ran before."""

from __future__ import annotations

import hashlib

import torch


def seeded(*purpose: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator seeded by a hash of `purpose`, such as (seed, "order", epoch)."""
    name = "\x1f".join(map(str, purpose)).encode()
    seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
    return torch.Generator(device=device).manual_seed(seed)
