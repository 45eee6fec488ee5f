# SPDX-License-Identifier: Apache-2.0
"""Everything that stands in the way of an import, collected so that the user sees all of it at once."""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.errors import ModelError, UnsupportedError

_NAMES_SHOWN = 5


class Problems:
    """Refusals (what this version cannot run) and mistakes (what is wrong in the model).

    `unit` is what the format calls its parts ("node", "layer"); `remedy` what helps against mistakes.
    """

    def __init__(self, unit: str, remedy: str) -> None:
        self._unit, self._remedy = unit, remedy
        self._refusals: dict[tuple[str, str, str], list[str]] = {}  # (op or kind, reason, what to do) -> names
        self._mistakes: list[str] = []

    def refuse(self, kind: str, name: str, reason: str, do: str = "") -> None:
        """`name`, a node of op `kind` (or an input or initializer), cannot be imported."""
        self._refusals.setdefault((kind, reason, do), []).append(name)

    def mistake(self, text: str) -> None:
        """Something in the model contradicts itself or its format."""
        self._mistakes.append(text)

    @property
    def first(self) -> str:
        """One of them in a sentence; "" when there is none."""
        return next((_described(*key[:2], names) for key, names in self._refusals.items()), "".join(self._mistakes[:1]))

    def raise_any(self, where: str) -> None:
        """Raise UnsupportedError M201 when there are refusals, ModelError M104 when there are only mistakes."""
        if self._refusals:
            kinds = len({kind for kind, _, _ in self._refusals})
            names = sum(map(len, self._refusals.values()))
            raise UnsupportedError(
                f"{_plural(names, self._unit)} of {_plural(kinds, 'kind')} cannot be imported",
                where=where,
                code="M201",
                problems=[_described(*key[:2], names) for key, names in self._refusals.items()] + self._mistakes,
                do="; ".join(dict.fromkeys(do for _, _, do in self._refusals if do)),
            )
        if self._mistakes:
            raise ModelError(
                "the model is inconsistent",
                where=where,
                why=self._mistakes,
                code="M104",
                do=self._remedy,
            )


def _described(kind: str, reason: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (
        f"{kind} ({', '.join(names[:_NAMES_SHOWN])}{more}), {len(names)} times: {reason}"
        if len(names) > 1
        else f"{kind} ({names[0]}): {reason}"
    )


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
