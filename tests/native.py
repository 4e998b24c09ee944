"""The models that need no package beside this one's own."""

from __future__ import annotations

from study.core.config import shipped
from study.models.config import ModelConfig

NATIVE = {name: kind for name, kind in shipped(ModelConfig).items() if not kind.package}
