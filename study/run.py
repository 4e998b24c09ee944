# PYTHON_ARGCOMPLETE_OK
"""Run a study: `python -m study.run --space masking_ratio.yaml`.

Rerunning the same command resumes an interrupted study and skips what is finished.
"""

from __future__ import annotations

import signal
import sys

from study.console.run_options import RunOptions, parse_options
from study.core.errors import (
    MACHINE_FAULT,
    RERUN,
    MachineError,
    UserError,
    os_error_message,
    show_any_text,
)
from study.core.signals import EXIT_USAGE_ERROR, ShutdownRequest, handle_signals


def main(arguments: list[str] | None = None) -> int:
    """Run one study.

    Returns:
        0; 1 if a trial failed; 2 for an error the user can fix; 71 for a fault of this machine; 75
        when time or budget is exhausted, or after SIGUSR1; 130 after Ctrl-C or SIGTERM.
    """
    show_any_text()
    try:
        return _run(parse_options(arguments))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE_ERROR
    except MachineError as error:
        sys.stderr.write(f"{error}\n")
        return MACHINE_FAULT
    except OSError as error:
        sys.stderr.write(f"{os_error_message(error)}; {RERUN}\n")
        return MACHINE_FAULT


def _run(options: RunOptions) -> int:
    stop = ShutdownRequest()
    try:
        with handle_signals(options.seconds_left) as stop:
            # Help appears without what this imports.
            from study.driver.run_study import run_study

            return run_study(options, stop)
    except KeyboardInterrupt:
        sys.stderr.write(f"{_reason(options, stop)} to resume\n")
        return stop.code


def _reason(options: RunOptions, stop: ShutdownRequest) -> str:
    """Why the study ended early, and what to do."""
    if stop.number == signal.SIGALRM and options.stop_at:
        return f"stopped at {options.stop_at}; rerun with a later --stop-at"
    if stop.number == signal.SIGALRM:
        return "stopped before SLURM ends this job; rerun the same command"
    return "interrupted; rerun the same command"


if __name__ == "__main__":
    sys.exit(main())
