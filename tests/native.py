"""The models whose networks are of this package, which all tests of models run through."""

from __future__ import annotations

from study.core.config import shipped
from study.models.config import ModelConfig

NATIVE = {
    name: kind
    for name, kind in shipped(ModelConfig).items()
    if not kind.implementation.startswith("study.models.packages.")
}
"""Those of `tests/models/packages` have tests of their own, beside the packages' networks."""
