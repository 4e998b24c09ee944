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
