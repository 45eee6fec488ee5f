# SPDX-License-Identifier: Apache-2.0
"""Every error a user can meet. One class per kind of reader action; codes are stable.

The text always has the form: code and what happened, then `where`, `why` and `do` lines.
"""

from __future__ import annotations

from collections.abc import Sequence


class TensorwrightError(Exception):
    """Base of all errors of this package.

    `code` is stable across releases ("B102"); `what` is one sentence; `where` names file, node and op;
    `why` lists values, limits or rejects; `do` says what will help.
    """

    default_code = "T000"

    def __init__(
        self, what: str, *, where: str = "", why: str | Sequence[str] = (), do: str = "", code: str = ""
    ) -> None:
        self.code = code or self.default_code
        self.what, self.where, self.do = what, where, do
        self.why = (why,) if isinstance(why, str) and why else tuple(why)
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [f"{self.code} {self.what}"]
        if self.where:
            lines.append(f"  where  {self.where}")
        lines += [f"  why    {reason}" for reason in self.why]
        if self.do:
            lines.append(f"  do     {self.do}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """The error for `--json` output."""
        return {
            "code": self.code,
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "why": list(self.why),
            "do": self.do,
        }


class ModelError(TensorwrightError):
    """The model file is missing, damaged or inconsistent: fix the model. Codes M1xx."""

    default_code = "M100"


class UnsupportedError(ModelError):
    """The model uses something this version cannot run; `problems` lists all of it. Codes M2xx."""

    default_code = "M200"

    def __init__(
        self, what: str, *, problems: Sequence[str] = (), where: str = "", do: str = "", code: str = ""
    ) -> None:
        self.problems = tuple(problems)
        super().__init__(what, where=where, why=self.problems, do=do, code=code)


class BuildError(TensorwrightError):
    """The build cannot be completed with these options. Codes B1xx."""

    default_code = "B100"


class PlanError(TensorwrightError):
    """The plan file is stale, foreign or damaged. Codes P1xx."""

    default_code = "P100"


class InputError(TensorwrightError):
    """Arrays given at run do not fit the engine. Codes I1xx."""

    default_code = "I100"


class TargetError(TensorwrightError):
    """The device or its driver is missing or cannot do this. Codes D1xx."""

    default_code = "D100"


class InternalError(TensorwrightError):
    """A defect of Tensorwright itself: please report it with the output of `tensorwright doctor --json`. Codes X1xx."""

    default_code = "X100"
