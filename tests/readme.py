"""What the README tells its readers to write into files."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def example(name: str) -> str:
    """The block of code below `<!-- name -->`."""
    text = (REPOSITORY / "README.md").read_text()
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found is not None, name
    return found[1]
