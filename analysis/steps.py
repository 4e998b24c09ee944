"""Steps of a slow command: a line each, for a terminal or for the process that started it."""

from __future__ import annotations

import logging
from typing import TextIO

from study.core.errors import PrintableFormatter

PREFIX = "step: "
"""How a line begins by which another process recognizes a step."""

_logger = logging.getLogger(__name__)


def step(text: str) -> None:
    """Tell what is done next, if anybody listens."""
    _logger.info(text)


def show_steps(stream: TextIO, prefix: str = "") -> None:
    """Write the steps of this process as lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter(f"{prefix}%(message)s"))
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
