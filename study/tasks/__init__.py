"""What a stage trains the model to do."""

from __future__ import annotations
