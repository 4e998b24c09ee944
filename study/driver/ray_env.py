"""What Ray reads from the environment when it is imported: import this before it.

The authentication mode is fixed by that import, too, so `use_private_cluster` or `use_cluster`
comes first where a driver joins Ray. Without either, Ray is only used as a library.
"""

import os
import secrets
import sys
from pathlib import Path

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""At 0 Ray listens on the loopback interface alone, as it does on macOS."""

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# Ctrl-C is the command line's business.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# Nor does its library need to print a stack at SIGTERM.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
# A line says that a worker died, and standard output is not Ray's.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
# Pretrainings report no validation force error, and that is no mistake.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
# A snapshot of all trials every ten seconds, for a resume of Tune's own; the journal serves here.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")
# A worker of a busy machine needs longer than 2 s to leave one job before it is reused for another.
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")

_TOKEN = secrets.token_hex(32)
"""The token of this process' private cluster; Ray reads it once."""


def use_private_cluster() -> None:
    """Prepare for a cluster on this machine that only this process and its workers can join.

    Whoever can connect to Ray can run code, other users of this machine included; a token that the
    user has for other clusters is not used.

    Raises:
        RuntimeError: if Ray is imported already in another mode.
    """
    _set({MODE: "token", TOKEN: _TOKEN, LOOPBACK: "0"})
    os.environ.pop(TOKEN_PATH, None)


def use_cluster() -> None:
    """Prepare for a cluster that someone has started, with the user's token if there is one.

    `ray start` demands a token where its file exists, but does not tell those who connect.

    Raises:
        RuntimeError: if Ray is imported already in another mode.
    """
    has_file = (Path.home() / ".ray" / "auth_token").exists()
    if MODE not in os.environ and has_file:
        _set({MODE: "token"})


def _set(wanted: dict[str, str]) -> None:
    if "ray" in sys.modules and any(os.environ.get(name) != wanted[name] for name in wanted):
        raise RuntimeError("Ray was imported before its authentication mode was chosen")
    os.environ.update(wanted)
