# SPDX-License-Identifier: Apache-2.0
"""What tuning reports while it runs, and a bar that shows it.

All totals are known before the first measurement. A listener is any `Callable[[Event], bool | None]`; returning
False cancels the build.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tensorwright.errors import BuildError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


@dataclass(frozen=True, slots=True)
class Event:
    """One step of tuning.

    kind: "start" (totals are set), "workload" (one begins), "candidate" (one has been tried or skipped; `seconds` is
    the workload's best so far), "chosen" (a workload is decided; `text` names the kernel), "end".
    `workload` and `candidate` count those finished.
    """

    kind: str
    workloads: int
    workload: int
    candidates: int
    candidate: int
    text: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The event for `--json` lines."""
        return asdict(self)


Listener = Callable[[Event], "bool | None"]


def listening(progress: bool | Listener | None) -> AbstractContextManager[Listener | None]:
    """What `progress=` means: True is a bar (stopped however the block ends), a callable itself, else nothing."""
    return ProgressBar() if progress is True else nullcontext(progress or None)


class Reporter:
    """Counts what is done and tells the listener, if there is one."""

    def __init__(self, listener: Listener | None, workloads: int, decided: int, candidates: int) -> None:
        self._listener = listener
        self._event = Event("start", workloads, decided, candidates, 0)

    def tell(self, kind: str, text: str = "", seconds: float = 0.0) -> None:
        """Send an event. Raises BuildError B104 when the listener says no."""
        self._event = replace(self._event, kind=kind, text=text or self._event.text, seconds=seconds)
        if self._listener is not None and self._listener(self._event) is False:
            raise BuildError(
                "the build was cancelled by its progress listener",
                code="B104",
                do="run it again: what was tuned so far is in the timing cache",
            )

    def tried(self, best_s: float) -> None:
        """One candidate more is done."""
        self._event = replace(self._event, candidate=self._event.candidate + 1)
        self.tell("candidate", seconds=best_s)

    def decided(self, kernel: str, seconds: float) -> None:
        """One workload more is done."""
        self._event = replace(self._event, workload=self._event.workload + 1)
        self.tell("chosen", kernel, seconds)

    def passed_over(self, candidates: int) -> None:
        """Candidates that will not be tried."""
        self._event = replace(self._event, candidate=self._event.candidate + candidates)


class ProgressBar:
    """A listener that draws a bar on `console` (stderr), if that is a terminal; use as a context manager.

    The bar counts candidates, so it moves evenly through the whole of tuning.
    """

    def __init__(self, label: str = "tuning", console: Console | None = None) -> None:
        self._label, self._console = label, console
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}"),
        )
        # No refreshing thread: it would disturb the measurements.
        self._progress = Progress(
            *columns, console=self._console or Console(stderr=True), transient=True, auto_refresh=False
        )
        self._task = self._progress.add_task(self._label, total=None, now="")
        self._progress.start()
        return self

    def __call__(self, event: Event) -> None:
        if self._progress is None or self._task is None:
            raise RuntimeError("a ProgressBar listens only inside its `with` block")
        self._progress.update(
            self._task,
            total=event.candidates,
            completed=event.candidate,
            now=f"{event.workload}/{event.workloads} {event.text}"[:60],
        )
        self._progress.refresh()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
