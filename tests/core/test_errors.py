"""What a user is told: plain text on any terminal."""

from __future__ import annotations

import subprocess
import sys

from study.core.errors import UserError, printable


def test_names_cannot_command_a_terminal() -> None:
    hostile = "file\x1b[2J\x1b]0;title\x07\r\x9b31m.xyz"
    shown = str(UserError(f"{hostile}: no such file", "second line"))
    assert shown.splitlines()[1] == "second line"
    assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in shown.replace("\n", ""))
    assert "\\x1b[2J" in shown


def test_what_can_be_shown_stays() -> None:
    text = "σ = 0.5 Å × 2\n−3 %"
    assert printable(text) == text


def test_a_terminal_of_ascii_gets_escape_sequences() -> None:
    code = (
        "import sys\nfrom study.core.errors import UserError, exit_code\n"
        "def command():\n    raise UserError('σ = 0.5 Å')\n"
        "print('×') if exit_code(command) == 2 else None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b"\\u03c3 = 0.5 \\xc5\n"
    assert done.stdout == b"\\xd7\n"
