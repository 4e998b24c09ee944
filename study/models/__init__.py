"""Models by the name that a space gives them."""

from __future__ import annotations
