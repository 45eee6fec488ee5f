# SPDX-License-Identifier: Apache-2.0
"""Figures by their definitions, on traces that are made up."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

from tensorwright.cli.twexec import measure
from tensorwright.cli.twexec.measure import Trace
from tensorwright.cli.twexec.options import InferenceOptions
from tensorwright.cli.twexec.report import figure
from tensorwright.cli.twexec.stats import Figures, Parts, percentile


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 100, 1000, 1001])
@pytest.mark.parametrize("percent", [0, 1, 50, 90, 95, 99, 99.9, 100])
def test_percentile_is_the_element_that_the_formula_names(count: int, percent: float) -> None:
    ordered = np.arange(count, dtype=float)
    left_out = (1000 - round(percent * 10)) * count // 1000
    assert percentile(ordered, percent) == max(count - 1 - left_out, 0)


def test_percentile_of_ten_values_is_not_moved_by_rounding() -> None:
    assert percentile(np.arange(10.0), 90) == 8  # 1 - 0.9 is less than 0.1 in floating point


def test_figures_match_numpy() -> None:
    values = np.random.default_rng().random(101)
    found = Figures.of(values, (90.0,))
    assert (found.min, found.max, found.median) == (values.min(), values.max(), np.median(values))
    assert found.mean == pytest.approx(values.mean()) and found.variation == pytest.approx(values.std() / values.mean())


def test_parts_of_a_trace_are_its_spans_in_ms() -> None:
    marks = np.cumsum(np.random.default_rng().integers(1, 10**7, (25, 5)), axis=1)
    parts = Parts.of(Trace(marks, 0, 0, 1.0, interrupted=False))
    for values, begin in ((parts.h2d, 0), (parts.enqueue, 1), (parts.compute, 2), (parts.d2h, 3)):
        np.testing.assert_allclose(values, (marks[:, begin + 1] - marks[:, begin]) / 1e6)
    np.testing.assert_allclose(parts.latency, (marks[:, 4] - marks[:, 0] - (marks[:, 2] - marks[:, 1])) / 1e6)
    sizes = [len(group.compute) for _, group in parts.groups(10)]
    assert sizes == [10, 10] and [len(g.compute) for _, g in parts.groups(100)] == [25]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (1.5, "1.5"), (1234567.0, "1234567"), (0.000012, "0.000012"), (3.14159265, "3.14159"), (2e-10, "0")],
)
def test_figure_is_never_in_exponents(number: float, text: str) -> None:
    assert figure(number) == text


def test_figure_keeps_its_digits() -> None:
    for value in 10.0 ** np.random.default_rng().uniform(-6, 8, 200):
        text = figure(float(value))
        assert re.fullmatch(r"\d+(\.\d+)?", text) and float(text) == pytest.approx(value, rel=1e-3)


class Counted:
    """A stream that counts instead of computing; `fails_at` raises in that query."""

    def __init__(self, fails_at: int = -1) -> None:
        self.calls, self.fails_at = 0, fails_at
        self.copy_in = self.hand_over = self.copy_out = lambda: None

    def compute(self) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise ValueError("the stream fails")


def wanted(iterations: int = 5, duration_s: float | None = 0.0, warm_up_ms: float = 0.0) -> InferenceOptions:
    return InferenceOptions(
        *({}, {}, iterations, duration_s, warm_up_ms, 0.0, 0.0, 1),
        transfers=True,
        profile=0,
        time_deserialize=False,
        threads=False,
    )


def test_warm_up_is_not_counted() -> None:
    stream = Counted()
    trace = measure.measure([stream], wanted(7, warm_up_ms=5))
    assert trace.queries == 7 and trace.warm_up == stream.calls - 7 > 0


def test_duration_asks_for_more_than_the_iterations() -> None:
    trace = measure.measure([Counted()], wanted(1, 0.05))
    assert trace.wall_s >= 0.05 and trace.queries > 1


def test_error_of_one_stream_ends_all_and_is_raised() -> None:
    streams = [Counted(), Counted(fails_at=20), Counted()]
    with pytest.raises(ValueError, match="the stream fails"):
        measure.measure(streams, wanted(duration_s=None))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stream-")]


def test_long_run_forgets_its_beginning_and_counts_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_MOST_KEPT", 100)
    trace = measure.measure([Counted()], wanted(1000))
    assert trace.queries == 1000 and len(trace.times) <= 101 and trace.forgotten >= 899
    kept = (trace.times[-1, 4] - trace.times[0, 0]) / 1e9
    assert trace.wall_s > kept, "the wall time is that of all queries"


def test_measurement_off_the_main_thread_works() -> None:
    found: list[Trace] = []
    thread = threading.Thread(target=lambda: found.append(measure.measure([Counted()], wanted(3))))
    thread.start()
    thread.join()
    assert found[0].queries == 3 and not found[0].interrupted
