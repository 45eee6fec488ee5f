# SPDX-License-Identifier: Apache-2.0
"""The table of flags in how-to/twexec.md, from the table that the program reads."""

from __future__ import annotations

import pathlib
import re

from tensorwright.cli.twexec.flags import Effect, Flag
from tensorwright.cli.twexec.table_run import GROUPS

PAGE = pathlib.Path(__file__).resolve().parent / "how-to" / "twexec.md"
BEGIN, END = "<!-- flags: written by `make docs` -->", "<!-- end of flags -->"


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


def twexec_page() -> str:
    """docs/how-to/twexec.md with the table as it is now; the rest of the page is written by hand."""
    whole = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    return whole.sub(lambda _: f"{BEGIN}\n\n{flag_table()}\n{END}", PAGE.read_text(encoding="utf-8"))
