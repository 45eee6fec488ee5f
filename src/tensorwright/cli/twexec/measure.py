# SPDX-License-Identifier: Apache-2.0
"""Queries one after the other, on any number of streams, with the times of each."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tensorwright.backends.cpu.launch import FIRST_TENSOR
from tensorwright.ir.op import Array
from tensorwright.runtime.bindings import address
from tensorwright.runtime.context import Context

if TYPE_CHECKING:
    from tensorwright.cli.twexec.options import InferenceOptions
    from tensorwright.runtime.engine import Engine

_MARKS: Final = 5  # of a query: start of copy in, of handing over, of computation, of copy out, and its end
_MOST_KEPT: Final = 4_000_000  # queries whose times are kept: an endless run must not eat the memory
_WARM_PROFILES: Final = 2
_MOST_PROFILES: Final = 100_000
_clock = time.perf_counter_ns


class Stream:
    """One context with arrays of its own. A query is copy_in, hand_over, compute, copy_out.

    An engine that is one native program, with sizes that its inputs tell, is entered directly on addresses that are
    bound before, as a careful application would; others take the checked way.
    """

    def __init__(self, context: Context, feeds: dict[str, Array], transfers: bool) -> None:
        """Raises InputError when the inputs do not fit, as every first run of a context does."""
        self.context = context
        self.given = list(feeds.values())
        self.bound = [np.array(x, order="C") for x in self.given]
        self.results: list[Any] = list(context.run(dict(zip(feeds, self.bound, strict=True))).values())
        self.is_direct = type(context) is Context and not context.decides_sizes
        self.host: list[Any] = []
        self.hand_over: Callable[[], object] = _nothing
        self.compute: Callable[[], object] = self._checked
        self.copy_in: Callable[[], object] = _copier(self.given, self.bound) if transfers else _nothing
        self.copy_out: Callable[[], object] = self._copy_out if transfers else _nothing
        if self.is_direct:
            self.hand_over, self.compute = self._direct()
        if transfers and self.is_direct:
            self.host = [np.empty_like(x) for x in self.results]
            self.copy_out = _copier(self.results, self.host)

    def _direct(self) -> tuple[Callable[[], object], Callable[[], object]]:
        context, tensors = self.context, [*self.bound, *self.results]
        context.set_sizes([x.shape for x in self.bound], {})
        table = context.table
        places = [(FIRST_TENSOR + i, address(x)) for i, x in enumerate(tensors)]

        def hand_over() -> None:
            for slot, place in places:
                table[slot] = place

        return hand_over, context.enter

    def _checked(self) -> None:
        self.results = self.context.execute(self.bound)

    def _copy_out(self) -> None:
        self.host = [x.copy() if isinstance(x, np.ndarray) else x for x in self.results]


def _nothing() -> None:
    """Where there is nothing to do."""


def _copier(sources: Sequence[Array], targets: Sequence[Array]) -> Callable[[], object]:
    pairs = list(zip(targets, sources, strict=True))

    def copy() -> None:
        for target, source in pairs:
            target[...] = source  # half the time of np.copyto

    return copy


@dataclass(frozen=True, slots=True)
class Trace:
    """What was measured: i64[queries, 5] in ns, in the order of starts: when copying in, handing over, computing and
    copying out began, and the end.

    `warm_up` queries came before, `forgotten` were measured and not kept. `wall_s`: from first start to last end.
    """

    times: Array
    warm_up: int
    forgotten: int
    wall_s: float
    interrupted: bool

    @property
    def queries(self) -> int:
        """All that were counted."""
        return len(self.times) + self.forgotten


class _Worker:
    """The loop of one stream."""

    def __init__(self, stream: Stream, wanted: InferenceOptions, stop: threading.Event) -> None:
        self.stream, self.wanted, self.stop = stream, wanted, stop
        self.times = array("q")
        self.warm_up = self.forgotten = self.first = 0
        self.error: BaseException | None = None

    def run(self, start: Callable[[], object] = _nothing) -> None:
        """Until the iterations and the time are over, or somebody stops it."""
        try:
            start()
            self._loop()
        except BaseException as error:  # noqa: BLE001  raised again by whoever waits for the thread
            self.error = error
            self.stop.set()

    def _loop(self) -> None:
        stream, wanted, times, stopped = self.stream, self.wanted, self.times, self.stop.is_set
        copy_in, hand_over, compute, copy_out = stream.copy_in, stream.hand_over, stream.compute, stream.copy_out
        transfers, sleep_s, idle_s = wanted.transfers, wanted.sleep_ms / 1e3, wanted.idle_ms / 1e3
        endless, least = wanted.duration_s is None, wanted.iterations
        counted_from = _clock() + int(wanted.warm_up_ms * 1e6)
        until, lasts = 0, int((wanted.duration_s or 0) * 1e9)
        counted, limit = 0, _MOST_KEPT * _MARKS
        while not stopped():
            if sleep_s:
                time.sleep(sleep_s)
            t0 = t1 = _clock()
            if transfers:
                copy_in()
                t1 = _clock()
            hand_over()
            t2 = _clock()
            compute()
            t3 = t4 = _clock()
            if transfers:
                copy_out()
                t4 = _clock()
            if t2 < counted_from:
                self.warm_up += 1
            else:
                counted += 1
                until = until or t0 + lasts
                times.extend((t0, t1, t2, t3, t4))
                if len(times) > limit:
                    self._forget()
                if counted >= least and t4 >= until and not endless:
                    return
            if idle_s:
                time.sleep(idle_s)

    def _forget(self) -> None:
        """Drop the first half of what was kept."""
        self.first = self.first or self.times[0]
        half = len(self.times) // _MARKS // 2
        del self.times[: half * _MARKS]
        self.forgotten += half


def measure(streams: Sequence[Stream], wanted: InferenceOptions) -> Trace:
    """Run all streams at once, each on a thread of its own, a single one on the caller's. Ctrl-C ends it."""
    stop = threading.Event()
    workers = [_Worker(stream, wanted, stop) for stream in streams]
    with _interruptible(stop) as interrupted:
        if len(workers) == 1:
            workers[0].run()
        else:
            _run_together(workers, stop)
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    rows = [np.frombuffer(w.times, np.int64).reshape(-1, _MARKS) for w in workers]
    times: Array = np.concatenate(rows)
    times = times[np.argsort(times[:, 0], kind="stable")]
    first = min([w.first for w in workers if w.first] + [int(t) for t in times[:1, 0]], default=0)
    wall = (int(times[:, 4].max()) - first) / 1e9 if len(times) else 0.0
    return Trace(
        times,
        sum(w.warm_up for w in workers),
        sum(w.forgotten for w in workers),
        wall,
        interrupted.is_set(),
    )


def _run_together(workers: Sequence[_Worker], stop: threading.Event) -> None:
    barrier = threading.Barrier(len(workers))
    threads = [threading.Thread(target=w.run, args=(barrier.wait,), name=f"stream-{i}") for i, w in enumerate(workers)]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        if len(started) < len(threads):
            barrier.abort()
        for thread in started:
            thread.join()


@contextlib.contextmanager
def _interruptible(stop: threading.Event) -> Iterator[threading.Event]:
    """Ctrl-C sets `stop` and the event that is given; a second one interrupts as usual."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def handle(number: int, frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def profile(stream: Stream, wanted: InferenceOptions) -> tuple[Array, Array]:
    """Times of the steps in runs one step at a time: i64[runs, steps] in ns, and the steps in the order they began.

    As many runs as iterations and duration ask for, after two to warm up. An endless measurement takes as many as it
    has iterations.
    """
    context = stream.context
    rows: list[Array] = []
    context.execute_profiled(stream.bound, _WARM_PROFILES)
    until = _clock() + int((wanted.duration_s or 0) * 1e9)
    stop = threading.Event()
    with _interruptible(stop):
        while len(rows) < _MOST_PROFILES:
            times = context.execute_profiled(stream.bound, 1)[0]
            rows.append(times[:, 1] - times[:, 0])
            if stop.is_set() or (len(rows) >= wanted.iterations and _clock() >= until):
                break
    return np.array(rows), np.argsort(times[:, 0], kind="stable")


def make_streams(engine: Engine, feeds: dict[str, Array], wanted: InferenceOptions) -> list[Stream]:
    """The streams, each with a context of the chosen profile."""
    contexts = [engine.create_context(wanted.profile) for _ in range(wanted.streams)]
    return [Stream(context, feeds, wanted.transfers) for context in contexts]
