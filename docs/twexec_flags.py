# SPDX-License-Identifier: Apache-2.0
"""Writes the table of flags into how-to/twexec.md, from the table that the program reads.

To run it: `python docs/twexec_flags.py`.
A test fails when the page is out of date.
"""

from __future__ import annotations

import pathlib
import re

from tensorwright.cli.twexec.flags import Effect, Flag
from tensorwright.cli.twexec.table_run import GROUPS

PAGE = pathlib.Path(__file__).resolve().parent / "how-to" / "twexec.md"
BEGIN, END = "<!-- flags: written by docs/twexec_flags.py -->", "<!-- end of flags -->"


def flag_table() -> str:
    """Markdown: a table for each group, a row for each flag."""
    lines: list[str] = []
    for title, flags in GROUPS.items():
        lines += [f"### {title}", "", "| flag | trtexec | here |", "|---|---|---|"]
        lines += [f"| `{_cell(flag.usage)}` | {flag.versions} | {_cell(_says(flag))} |" for flag in flags]
        lines.append("")
    return "\n".join(lines)


def _says(flag: Flag) -> str:
    if flag.effect is Effect.ACTS:
        return flag.help + (f" (default {flag.default})" if flag.default else "")
    return f"**{flag.effect}**: {flag.help}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def updated(page: str) -> str:
    """The text of the page with the table as it is now."""
    whole = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    return whole.sub(lambda _: f"{BEGIN}\n\n{flag_table()}\n{END}", page)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
