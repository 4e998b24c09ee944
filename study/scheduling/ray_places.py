"""Where the folder of a private Ray may lie."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

LONGEST_SOCKET = 107 if sys.platform == "linux" else 103
"""Bytes of a Unix socket's path."""

SOCKET = "/session_2026-12-31_23-59-59_999999_9999999/sockets/plasma_store"
"""What Ray adds to the path of its folder."""

PREFIX = "study-ray-"


def places() -> list[Path]:
    """Where Ray's folder may lie: as short as its sockets need, and writable."""
    candidates = dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"])
    return [
        Path(place)
        for place in candidates
        if len(os.fsencode(f"{place}/{PREFIX}12345678{SOCKET}")) <= LONGEST_SOCKET
        and os.access(place, os.W_OK)
    ]
