"""What Ray reads from the environment when it is imported: import this before it."""

import os
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# `ray start` demands a token where there is one, but does not tell those who connect.
if (Path.home() / ".ray" / "auth_token").exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")
# Ctrl-C is the command line's business.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# Of a worker that died the user is told in a line, and standard output is not Ray's.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
# Pretrainings report no validation force error, and that is no mistake.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
