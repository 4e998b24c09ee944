"""What the user is told when something cannot go on."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: shown as it is, one line per problem, exit code 2.

    Args:
        problems: one line each, naming place, rule, value and the way out.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def of_disk(problem: OSError) -> str:
    """What the system refused to do, and with which file, in a line."""
    place = f"{problem.filename}: " if problem.filename else ""
    return f"{place}{problem.strerror or problem}"
