"""Random generators by their purpose."""

from __future__ import annotations

import torch

from study.core.seeding import seeded


def test_generators_are_a_function_of_their_purpose() -> None:
    purposes = [(0, "order", 1), (0, "order", 2), (1, "order", 1), (0, "task", 1), (0, "order")]
    drawn = [torch.rand(3, generator=seeded(*purpose)).tolist() for purpose in purposes]
    assert len({tuple(numbers) for numbers in drawn}) == len(purposes)
    assert torch.rand(3, generator=seeded(0, "order", 1)).tolist() == drawn[0]
