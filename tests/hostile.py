"""What somebody could put into a name, a question, an error message or a JSON file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HOSTILE = (
    "<script>alert('1')</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></svg><iframe src=//evil.example>",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "[click](javascript:alert(1))",
    "![](https://evil.example/pixel.png)",
    "https://evil.example www.evil.example me@evil.example",
    "# heading * list **bold** `code` | table | ~~gone~~ &lt;b&gt; \\*",
    "1. first",
    "- item",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "good\rbad\x08\x08\x08",
    "invoice\u202egnp.exe\u2066\u200f",
    "zero\u200bwidth\ufeff\u2028line",
    '=HYPERLINK("https://evil.example")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1+1",
    "\r=1+1",
    "\uff1d1+1",
    "../../../etc/passwd",
    "name\0null",
    "[bold red]markup[/bold red] :smile:",
    "$\\frac{1}{2}$ %s {0} %(name)s",
)
"""One list for all places where texts are shown."""

STRANGE: list[Any] = [None, -1, "x", [], {}, ["x"], {"x": 1}, 1e308, "../../x"]
"""Values of other kinds than those that are written."""


def altered(value: dict[str, Any], deep: int) -> Iterator[dict[str, Any]]:
    """Copies of a JSON object in each of which one entry is another or missing.

    Args:
        value: the object.
        deep: levels of objects in it that are altered as well.
    """
    for name, child in value.items():
        for strange in STRANGE:
            yield {**value, name: strange}
        yield {each: value[each] for each in value if each != name}
        if deep and isinstance(child, dict):
            yield from ({**value, name: each} for each in altered(child, deep - 1))
