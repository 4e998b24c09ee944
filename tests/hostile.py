"""Texts that somebody could put into a name, a question or an error message."""

from __future__ import annotations

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
