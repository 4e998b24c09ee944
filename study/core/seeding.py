"""Random numbers that depend on what they are for, never on what ran before."""

from __future__ import annotations

import hashlib

import torch


def seeded(*purpose: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers are a function of `purpose`, such as (seed, "order", epoch)."""
    name = "\x1f".join(map(str, purpose)).encode()
    seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
    return torch.Generator(device=device).manual_seed(seed)
