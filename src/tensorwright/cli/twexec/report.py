# SPDX-License-Identifier: Apache-2.0
"""What is printed after the inference, in the shape that scripts read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tensorwright.cli.twexec.export import dimensions
from tensorwright.cli.twexec.log import Log
from tensorwright.cli.twexec.measure import Trace
from tensorwright.cli.twexec.options import Options
from tensorwright.cli.twexec.stats import Figures, Parts, percentile

if TYPE_CHECKING:
    from tensorwright.cli.twexec.layers import Layer
    from tensorwright.runtime.engine import Engine

_ENDS: Final = 200  # lines of averages at the beginning and at the end; those between are left out
_UNSTABLE: Final = 0.025
_LATE_ENQUEUE: Final = 0.8
_EXPLANATIONS: Final = (
    "=== Explanations of the performance metrics ===",
    "Total Host Walltime: from the start of the first counted query to the end of the last.",
    "GPU Compute Time: time of the step program, on the CPU; the name is the one that scripts look for.",
    "Total GPU Compute Time: sum of that over all counted queries, on all streams.",
    "Throughput: counted queries (with a batch: samples) divided by the Total Host Walltime.",
    "Enqueue Time: time to hand the addresses of a query's arrays over to the context.",
    "H2D Latency: time to copy the inputs into the arrays that the context reads.",
    "D2H Latency: time to copy the outputs out of the arrays that the context writes.",
    "Latency: sum of H2D Latency, GPU Compute Time and D2H Latency of a query.",
)


def figure(value: float) -> str:
    """Six significant digits, never with an exponent."""
    text = f"{value:.6g}"
    return text if "e" not in text else f"{value:.0f}" if abs(value) >= 1 else f"{value:.9f}".rstrip("0").rstrip(".")


def performance(trace: Trace, samples: int, options: Options, log: Log) -> None:
    """Trace details and performance summary. `samples`: of a query."""
    parts = Parts.of(trace)
    queries = trace.queries * samples
    if trace.interrupted:
        log.warning("The measurement was interrupted: the report is about what ran until then")
    log.info(f"Warmup completed {trace.warm_up * samples} queries over {options.inference.warm_up_ms:g} ms")
    log.info(f"Timing trace has {queries} queries over {figure(trace.wall_s)} s")
    if trace.forgotten:
        log.info(f"Of these the times of the last {len(trace.times)} are reported")
    log.info()
    if not len(trace.times):
        log.warning("No query was counted")
        return
    _details(parts, options, log)
    _summary(parts, trace, queries, options, log)


def _details(parts: Parts, options: Options, log: Log) -> None:
    size = options.report.avg_runs
    log.info("=== Trace details ===")
    log.info(f"Trace averages of {size} runs:")
    last = max(len(parts.compute) // size, 1)
    for number, group in parts.groups(size):
        if _ENDS <= number < last - _ENDS:
            if number == _ENDS:
                log.info(f"... Omitting {last - 2 * _ENDS} lines")
            continue
        runs = len(group.compute)
        log.info(
            f"Average on {runs} runs - GPU latency: {figure(float(group.compute.mean()))} ms - "
            f"Host latency: {figure(float(group.latency.mean()))} ms "
            f"(enqueue {figure(float(group.enqueue.mean()))} ms)"
        )
        if options.classic:
            log.raw(_classic(group, options))
    log.info()


def _classic(group: Parts, options: Options) -> str:
    """The line of giexec. Its time is that of the device, or of the host with --hostTime."""
    host = group.latency + group.enqueue
    spans = host if options.report.host_time else group.compute
    percent = 99.0 if 99.0 in options.report.percentiles else options.report.percentiles[-1]
    return (
        f"Average over {len(spans)} runs is {figure(float(spans.mean()))} ms "
        f"(host walltime is {figure(float(host.mean()))} ms, "
        f"{percent:g}% percentile time is {figure(percentile(np.sort(spans), percent))})."
    )


def _summary(parts: Parts, trace: Trace, queries: int, options: Options, log: Log) -> None:
    percents = options.report.percentiles
    compute = Figures.of(parts.compute, percents)
    log.info("=== Performance summary ===")
    log.info(f"Throughput: {figure(queries / trace.wall_s if trace.wall_s else 0.0)} qps")
    for name, values in (
        ("Latency", parts.latency),
        ("Enqueue Time", parts.enqueue),
        ("H2D Latency", parts.h2d),
        ("GPU Compute Time", parts.compute),
        ("D2H Latency", parts.d2h),
    ):
        log.info(f"{name}: {_figures(Figures.of(values, percents), percents)}")
    log.info(f"Total Host Walltime: {figure(trace.wall_s)} s")
    log.info(f"Total GPU Compute Time: {figure(float(parts.compute.sum()) / 1e3)} s")
    _warnings(parts, compute, options, log)
    if options.report.verbose:
        for line in _EXPLANATIONS:
            log.detail(line)
    else:
        log.info("Explanations of the performance metrics are printed in the verbose logs.")
    log.info()


def _figures(figures: Figures, percents: Sequence[float]) -> str:
    named = {"min": figures.min, "max": figures.max, "mean": figures.mean, "median": figures.median}
    named |= {f"percentile({p:g}%)": value for p, value in zip(percents, figures.percentiles, strict=True)}
    return ", ".join(f"{name} = {figure(value)} ms" for name, value in named.items())


def _warnings(parts: Parts, compute: Figures, options: Options, log: Log) -> None:
    median = compute.median
    if float(np.median(parts.enqueue)) > _LATE_ENQUEUE * median:
        log.warning(
            "* Handing queries over takes about as long as computing them: the throughput is bound by the host."
        )
    if float(np.median(parts.h2d)) >= median:
        log.warning("* Copying the inputs takes as long as computing: --noDataTransfers leaves the copies out.")
    if float(np.median(parts.d2h)) >= median:
        log.warning("* Copying the outputs takes as long as computing: --noDataTransfers leaves the copies out.")
    if compute.variation > _UNSTABLE:
        log.warning(
            f"* GPU compute time is unstable, with coefficient of variance = {figure(compute.variation * 100)}%.\n"
            "  Other processes on this machine, or changing clocks, are the usual reason; a longer --duration helps."
        )
    if options.inference.streams > 1:
        log.warning("* Several streams share the cores: judge by the throughput, not by the latency of a query.")


# -- layers -----------------------------------------------------------------------------------------
def layer_profile(rows: Sequence[Mapping[str, Any]], runs: int, log: Log) -> None:
    """The table of --dumpProfile."""
    total = {
        "timeMs": sum(row["timeMs"] for row in rows),
        "averageMs": sum(row["averageMs"] for row in rows),
        "medianMs": sum(row["medianMs"] for row in rows),
        "percentage": sum(row["percentage"] for row in rows),
        "name": "Total",
    }
    log.info(f"=== Profile ({runs} iterations ) ===")
    log.info(f"{'Time(ms)':>12}{'Avg.(ms)':>12}{'Median(ms)':>12}{'Time(%)':>10}   Layer")
    for row in (*rows, total):
        log.info(
            f"{row['timeMs']:>12.2f}{row['averageMs']:>12.4f}{row['medianMs']:>12.4f}{row['percentage']:>10.1f}   "
            f"{row['name']}"
        )
    log.info()


def layer_info(layers: Sequence[Layer], bindings: Sequence[str], verbosity: str, log: Log) -> None:
    """The text of --dumpLayerInfo."""
    log.info("Layer Information:")
    log.info("Layers:")
    for layer in layers if verbosity != "none" else ():
        log.info(layer.name if verbosity != "detailed" else _detailed(layer))
    log.info()
    log.info("Bindings:")
    for name in bindings:
        log.info(name)
    log.info()


def _detailed(layer: Layer) -> str:
    facts = layer.as_dict()
    facts["Metadata"] = ", ".join(layer.origin)
    for side, tensors in (("Inputs", layer.inputs), ("Outputs", layer.outputs)):
        shown = [
            f"{{ Name: {t.name}, Dimensions: [{','.join(map(str, t.dims))}], "
            f"Format/Datatype: {t.as_dict()['Format/Datatype']} }}"
            for t in tensors
        ]
        facts[side] = f"[{', '.join(shown)}]"
    return ", ".join(f"{key}: {value}" for key, value in facts.items())


def optimization_profiles(engine: Engine, log: Log) -> None:
    """The ranges of all inputs, of every profile."""
    log.info("Optimization Profile Information:")
    for number, ranges in enumerate(engine.profiles):
        log.info(f"Optimization Profile {number}:")
        for name, shapes in ranges.items():
            low, mid, high = ("x".join(map(str, s)) or "scalar" for s in (shapes.min, shapes.opt, shapes.max))
            log.info(f"  {name}: min={low}, opt={mid}, max={high}")
    log.info()


def outputs(results: Mapping[str, Any], log: Log) -> None:
    """The text of --dumpOutput."""
    log.info("Output Tensors:")
    for name, value in results.items():
        log.info(f"{name}: ({dimensions(value)})")
        flat = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
        log.info(" ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in flat))
    log.info()
