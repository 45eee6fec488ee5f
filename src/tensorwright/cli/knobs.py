# SPDX-License-Identifier: Apache-2.0
"""`tensorwright knobs`: every environment variable, its value now and what it does."""

from __future__ import annotations

from tensorwright.cli.common import Debug, Json, answer, command, table


@command
def knobs(as_json: Json = False, debug: Debug = False) -> None:
    """List the environment variables that Tensorwright reads."""
    from tensorwright import knobs as declared

    rows = [knob.as_dict() for knob in declared.ALL]

    def draw() -> None:
        table(
            "",
            {"variable": "left", "value": "left", "what it does": "left"},
            [[row["name"], _shown(row), row["help"]] for row in rows],
        )

    answer({"knobs": rows}, draw, as_json=as_json)


def _shown(row: dict[str, object]) -> str:
    value = row["value"]
    text = "-" if value is None or value == [] else str(value)
    return f"{text} (set)" if row["is_set"] else text
