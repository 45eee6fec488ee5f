# SPDX-License-Identifier: Apache-2.0
"""The tuner on scripted kernels: who wins, who is never tried, and what survives interruptions."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tensorwright.errors import BuildError
from tensorwright.tune.cache import TuningCache
from tensorwright.tune.progress import Event, ProgressBar, listening
from tensorwright.tune.record import Choice
from tensorwright.tune.search import tune
from tests.tune.fakes import FakeConfig, FakeFamily, FakeMeasurer, FakeTarget, negation

W = negation(8)
MS = 1e-3


def configs(*seconds: float) -> list[FakeConfig]:
    return [FakeConfig(s) for s in seconds]


def decide(family: FakeFamily, target: FakeTarget | None = None, **options: object) -> Choice:
    return tune([W], None, target or FakeTarget(), [family], **options)[W.key]  # type: ignore[arg-type]


def test_tune_several_candidates_fastest_wins() -> None:
    choice = decide(FakeFamily("f", configs(3 * MS, 1 * MS, 2 * MS)))
    assert choice == Choice("f", 1, {"seconds": 1 * MS, "fault": ""}, 1 * MS, "measured")


def test_tune_candidates_in_the_race_are_timed_in_turns() -> None:
    target = FakeTarget()
    decide(FakeFamily("f", configs(1.00 * MS, 1.05 * MS)), target)
    first, second = 1.00 * MS, 1.05 * MS
    assert target.clock.log[:5] == [first, first, second, first, second]  # the newcomer encloses the leader
    assert target.clock.log[5:] == [first, second] * 6


def test_tune_slow_candidates_leave_after_two_samples() -> None:
    target = FakeTarget()
    decide(FakeFamily("f", configs(1 * MS, 1.5 * MS, 1.02 * MS)), target)
    assert target.clock.log.count(1.5 * MS) == 2
    assert target.clock.log.count(1.02 * MS) > 2


@pytest.mark.parametrize("busy", [(0, 2), (2, 5), (5, 8), (8, 11), (2, 11)], ids=str)
def test_tune_while_the_machine_is_disturbed_still_finds_the_fastest(busy: tuple[int, int]) -> None:
    """Another process takes half of the machine for some of the samples."""
    target = FakeTarget(FakeMeasurer(slowness=lambda sample: 2.0 if busy[0] < sample <= busy[1] else 1.0))
    assert decide(FakeFamily("f", configs(1.4 * MS, 1.2 * MS, 1 * MS)), target).config["seconds"] == 1 * MS


def test_tune_near_the_roofline_stops_without_trying_the_rest() -> None:
    family = FakeFamily("f", configs(1.05 * MS, 0.9 * MS), bound_s=1 * MS)
    assert decide(family).config["seconds"] == 1.05 * MS
    assert family.emitted == configs(1.05 * MS)


def test_tune_within_noise_the_earlier_guess_wins() -> None:
    assert decide(FakeFamily("f", configs(1.01 * MS, 1 * MS))).config["seconds"] == 1.01 * MS


def test_tune_families_are_tried_in_turns() -> None:
    first, second = FakeFamily("a", configs(*[5 * MS] * 20)), FakeFamily("b", configs(4 * MS, 1 * MS))
    choice = tune([W], None, FakeTarget(), [first, second])[W.key]
    assert (choice.family, choice.config["seconds"]) == ("b", 1 * MS)


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_tune_wrong_kernel_is_never_chosen(mode: str, tmp_path: Path) -> None:
    cache = TuningCache(tmp_path / "t.json")
    wrong = FakeConfig(0.1 * MS, "wrong")
    choice = decide(FakeFamily("f", [wrong, *configs(2 * MS, 1 * MS)]), mode=mode, cache=cache)
    assert choice.config["seconds"] == 1 * MS
    record = cache.get("fake|fake", W.key)
    assert record is not None
    assert record.outcomes[0].status == "wrong"
    assert "elements differ" in record.outcomes[0].reason


def test_tune_broken_kernel_is_recorded_and_the_next_wins(tmp_path: Path) -> None:
    cache = TuningCache(tmp_path / "t.json")
    assert decide(FakeFamily("f", [FakeConfig(0.0, "broken"), *configs(1 * MS)]), cache=cache).seconds == 1 * MS
    record = cache.get("fake|fake", W.key)
    assert record is not None
    assert [o.status for o in record.outcomes] == ["failed", "won"]


def test_tune_all_kernels_wrong_raises_b103_with_reasons() -> None:
    with pytest.raises(BuildError, match="B103 every kernel for neg 8 failed") as caught:
        decide(FakeFamily("f", [FakeConfig(MS, "wrong"), FakeConfig(MS, "broken")]))
    assert any("elements differ" in reason for reason in caught.value.why)
    assert any("does not compile" in reason for reason in caught.value.why)


def test_tune_no_family_accepts_raises_b102_naming_all_workloads_and_reasons() -> None:
    big, bigger = negation(100), negation(200)
    family = FakeFamily("tiny", configs(MS), most=10)
    with pytest.raises(BuildError) as caught:
        tune([W, big, bigger], None, FakeTarget(), [family], where={big.key: "step 'neg_1', from Neg_7"})
    text = str(caught.value)
    assert text.startswith("B102 no kernel can run neg 100 and 1 more")
    assert "where  step 'neg_1', from Neg_7" in text
    assert "tiny: 100 elements > 10" in text
    assert "tiny: 200 elements > 10" in text
    assert family.emitted == []


def test_tune_equal_workloads_are_tuned_once() -> None:
    family = FakeFamily("f", configs(MS))
    assert len(tune([W, negation(8), negation(9)], None, FakeTarget(), [family])) == 2
    assert len(family.emitted) == 2


def test_tune_off_takes_the_first_guess_without_compiling() -> None:
    family = FakeFamily("f", configs(3 * MS, 1 * MS))
    assert decide(family, mode="off") == Choice("f", 1, {"seconds": 3 * MS, "fault": ""}, 0.0, "heuristic")
    assert family.emitted == []


def test_tune_target_that_does_not_run_here_is_not_measured() -> None:
    choice = decide(FakeFamily("f", configs(3 * MS, 1 * MS)), FakeTarget(runs_here=False))
    assert choice.source == "heuristic"


def test_tune_budget_used_up_decides_the_rest_by_guess() -> None:
    choices = tune([W, negation(9)], None, FakeTarget(), [FakeFamily("f", configs(MS))], budget_s=0.0)
    assert {c.source for c in choices.values()} == {"heuristic"}


def test_tune_unknown_mode_raises_b105() -> None:
    with pytest.raises(BuildError, match="B105"):
        decide(FakeFamily("f", configs(MS)), mode="hard")


# -- cache ------------------------------------------------------------------------------------------
def tuned(path: Path, family: FakeFamily, mode: str = "quick", target: FakeTarget | None = None) -> Choice:
    return decide(family, target, cache=TuningCache(path), mode=mode)


@pytest.mark.parametrize("mode", ["off", "quick", "full"])
def test_tune_cache_hit_compiles_nothing(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "t.json"
    first = tuned(path, FakeFamily("f", configs(2 * MS, 1 * MS)), "full")
    family = FakeFamily("f", configs(2 * MS, 1 * MS))
    again = tuned(path, family, mode)
    assert family.emitted == []
    assert again == Choice(first.family, first.version, first.config, first.seconds, "cache")


@pytest.mark.parametrize("change", ["version", "new family", "config", "mode", "target"])
def test_tune_cache_of_other_circumstances_is_measured_again(tmp_path: Path, change: str) -> None:
    path = tmp_path / "t.json"
    tuned(path, FakeFamily("f", configs(2 * MS, 1 * MS)))
    if change == "config":
        path.write_text(path.read_text().replace('"fault"', '"flaw"'))
    name, version = "g" if change == "new family" else "f", 2 if change == "version" else 1
    family = FakeFamily(name, configs(2 * MS, 1 * MS), version=version)
    target = FakeTarget(fingerprint="other") if change == "target" else None
    assert tuned(path, family, "full" if change == "mode" else "quick", target).source == "measured"


def test_tune_again_in_full_mode_verifies_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    tuned(path, FakeFamily("f", configs(1 * MS)))
    target = FakeTarget()
    tuned(path, FakeFamily("f", configs(1 * MS)), "full", target)
    assert target.clock.log
    assert target.clock.checks == 0


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, "listener"])
def test_tune_interrupted_leaves_a_valid_cache_of_what_is_done(tmp_path: Path, interruption: object) -> None:
    path, target = tmp_path / "t.json", FakeTarget()
    workloads = [W, negation(9), negation(10)]

    def interrupt() -> None:
        if len(target.clock.log) > 20 and interruption is KeyboardInterrupt:
            raise KeyboardInterrupt

    def listener(event: Event) -> bool | None:
        return False if interruption == "listener" and event.workload == 2 else None

    target.clock.on_sample = interrupt
    first = FakeFamily("f", configs(MS, 1.05 * MS))
    with pytest.raises(KeyboardInterrupt if interruption is KeyboardInterrupt else BuildError) as caught:
        tune(workloads, None, target, [first], cache=TuningCache(path), progress=listener)
    assert interruption is KeyboardInterrupt or caught.value.code == "B104"  # type: ignore[attr-defined]
    assert target.clock.open_trials == 0
    family = FakeFamily("f", configs(MS, 1.05 * MS))
    choices = tune(workloads, None, FakeTarget(), [family], cache=TuningCache(path))
    assert choices[W.key].source == "cache"
    assert choices[workloads[2].key].source == "measured"


def test_tune_all_trials_are_closed() -> None:
    target = FakeTarget()
    decide(FakeFamily("f", [FakeConfig(MS, "wrong"), *configs(MS, 2 * MS, 1.01 * MS)]), target)
    assert target.clock.open_trials == 0


# -- progress ---------------------------------------------------------------------------------------
def test_tune_progress_totals_are_known_first_and_reached_last() -> None:
    events: list[Event] = []
    family = FakeFamily("f", configs(MS, 2 * MS, 3 * MS))
    tune([W, negation(9)], None, FakeTarget(), [family], progress=events.append)
    assert (events[0].kind, events[0].workloads, events[0].candidates) == ("start", 2, 6)
    assert (events[-1].kind, events[-1].workload, events[-1].candidate) == ("end", 2, 6)
    assert [e.kind for e in events].count("candidate") == 6
    done = [e.candidate for e in events]
    assert done == sorted(done)
    json.dumps([e.as_dict() for e in events])


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bar_draws_on_terminals_only(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with ProgressBar(console=console) as bar:
        tune([W], None, FakeTarget(), [FakeFamily("f", configs(MS, 2 * MS))], progress=bar)
    assert ("2/2" in console.file.getvalue()) == terminal  # type: ignore[attr-defined]


def test_tune_same_times_give_the_same_choice() -> None:
    times = np.random.default_rng(11).uniform(1, 2, 8) * MS
    runs = [decide(FakeFamily("f", configs(*times)), FakeTarget(FakeMeasurer())) for _ in range(2)]
    assert runs[0] == runs[1]


def test_listening_true_is_a_bar_and_a_callable_is_itself() -> None:
    with listening(True) as bar, listening(print) as itself, listening(False) as nothing:
        assert isinstance(bar, ProgressBar)
        assert itself is print
        assert nothing is None
