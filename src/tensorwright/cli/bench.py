# SPDX-License-Identifier: Apache-2.0
"""`tensorwright bench`: latency and throughput of an engine, and of other runtimes on the same input."""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tensorwright.cli.common import (
    Debug,
    Json,
    Model,
    Outputs,
    Shapes,
    Target,
    Threads,
    TimingCache,
    Tune,
    Weights,
    answer,
    command,
    is_plan,
    machine,
    open_engine,
    parse_shapes,
    random_inputs,
    save_npz,
    source,
    table,
)
from tensorwright.errors import BuildError

if TYPE_CHECKING:
    from tensorwright.cli.peers import Timing


@command
def bench(
    model: Model,
    vs: Annotated[str, typer.Option("--vs", help="Other runtimes to time, by comma: onnxruntime,openvino.")] = "",
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, help="Time to measure a runtime in a round.")] = 1.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="The runtimes take turns so many times.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random inputs.")] = 0,
    target: Target = "cpu",
    weights: Weights = "",
    outputs: Outputs = [],  # noqa: B006  typer copies it
    shapes: Shapes = [],  # noqa: B006
    tune: Tune = "quick",
    timing_cache: TimingCache = "",
    threads: Threads = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Time an engine on random inputs; every measurement is a process of its own."""
    from tensorwright.cli import peers

    wanted = _wanted(vs, model)
    missing = [name for name in wanted if not peers.is_installed(name)]
    start = time.perf_counter()
    engine = open_engine(
        model,
        **source(weights, outputs),
        target=target,
        shapes=parse_shapes(shapes),
        tune=tune,
        timing_cache=timing_cache or None,
        threads=threads,
    )
    build_seconds = None if is_plan(model) else round(time.perf_counter() - start, 3)
    facts = machine()
    count = threads or int(str(facts["threads"]))
    with tempfile.TemporaryDirectory() as folder:
        plan, feed = str(pathlib.Path(folder) / "bench.plan"), str(pathlib.Path(folder) / "feed.npz")
        engine.save(plan)
        save_npz(feed, random_inputs(engine, seed))
        engine.close()
        timings: dict[str, list[Timing]] = {}
        for _ in range(rounds):
            for runtime in ("tensorwright", *(name for name in wanted if name not in missing)):
                path = plan if runtime == "tensorwright" else model
                request = peers.Request(runtime, path, target, feed, count, seconds)
                timings.setdefault(runtime, []).append(peers.measure(request))
    rows = {runtime: figures(results) for runtime, results in timings.items()}
    for runtime, results in timings.items():
        rows[runtime]["relative_difference"] = _difference(results[0], timings["tensorwright"][0])
    data = {
        "model": model,
        "target": target,
        "threads": count,
        "rounds": rounds,
        "seconds": seconds,
        "seed": seed,
        "build_seconds": build_seconds,
        "runtimes": rows,
        "not_installed": missing,
        "machine": facts,
    }
    answer(data, lambda: _draw(data, rows, missing), as_json=as_json)


def _wanted(vs: str, model: str) -> list[str]:
    from tensorwright.cli import peers

    wanted = [name.strip() for name in vs.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in peers.EXTRAS]
    if unknown:
        raise BuildError(
            f"cannot compare with {', '.join(unknown)}",
            why=f"known runtimes: {', '.join(peers.EXTRAS)}",
            do="name some of these after --vs",
            code="B111",
        )
    if wanted and is_plan(model):
        raise BuildError("other runtimes cannot run a plan", where=model, do="give the ONNX file instead", code="B112")
    return wanted


def figures(rounds: list[Timing]) -> dict[str, Any]:
    """Latency figures in microseconds. `median_us` is the median over rounds of each round's median."""
    samples = sorted(sample for timing in rounds for sample in timing.samples_us)
    median = statistics.median(statistics.median(timing.samples_us) for timing in rounds)
    at = {f"p{percent}_us": samples[min(len(samples) * percent // 100, len(samples) - 1)] for percent in (50, 90, 99)}
    return {
        "median_us": median,
        **at,
        "min_us": samples[0],
        "runs_per_second": 1e6 / median,
        "samples": len(samples),
        "ready_seconds": statistics.median(timing.ready_seconds for timing in rounds),
    }


def _difference(timing: Timing, reference: Timing) -> float | None:
    """Largest |a-b| / max|b| over the outputs of both; None when outputs or their NaN and infinities do not match."""
    import numpy as np

    worst = 0.0
    for name, want in reference.outputs.items():
        got = timing.outputs.get(name)
        if got is None or got.shape != want.shape or not np.array_equal(np.isfinite(got), np.isfinite(want)):
            return None
        finite = np.isfinite(want)
        if finite.any():
            scale = float(np.abs(want[finite].astype(np.float64)).max()) or 1.0
            worst = max(worst, float(np.abs(got[finite].astype(np.float64) - want[finite]).max()) / scale)
    return worst


def _draw(data: dict[str, Any], rows: dict[str, dict[str, Any]], missing: list[str]) -> None:
    from tensorwright.cli import peers

    ours = rows["tensorwright"]["median_us"]
    columns = {
        "runtime": "left",
        "median us": "right",
        "p90": "right",
        "p99": "right",
        "min": "right",
        "runs/s": "right",
        "ready s": "right",
        "vs tensorwright": "right",
        "difference": "right",
    }
    keys = ("median_us", "p90_us", "p99_us", "min_us", "runs_per_second")
    table(
        "",
        columns,
        [
            [
                name,
                *(f"{row[key]:.1f}" for key in keys),
                f"{row['ready_seconds']:.3f}",
                f"{row['median_us'] / ours:.2f}x",
                _shown(name, row["relative_difference"]),
            ]
            for name, row in rows.items()
        ],
    )
    built = "" if data["build_seconds"] is None else f"built in {data['build_seconds']} s; "
    cpu = data["machine"]
    typer.echo(
        f"{built}{data['threads']} threads, {data['rounds']} rounds of {data['seconds']:g} s, "
        f"{cpu['isa']} {cpu['cpu']}, load average {cpu['load_average']:.1f}"
    )
    for name in missing:
        typer.echo(f"{name} is not installed: pip install 'tensorwright[{peers.EXTRAS[name]}]'")


def _shown(runtime: str, difference: float | None) -> str:
    if runtime == "tensorwright":
        return "-"
    return "other outputs" if difference is None else f"{difference:.0e}"
