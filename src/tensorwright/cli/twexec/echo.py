# SPDX-License-Identifier: Apache-2.0
"""The options as they were understood, the machine, and the text of --help."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from tensorwright.cli.twexec.flags import Effect, Flag
from tensorwright.cli.twexec.log import Log
from tensorwright.cli.twexec.options import Options, Shapes
from tensorwright.cli.twexec.table_run import GROUPS

_USAGE = """twexec builds an engine for this machine from a trained network, times it, and reports.
It takes the flags of trtexec and giexec, as --name=value or --name value.

    twexec --onnx=model.onnx --saveEngine=model.plan
    twexec --loadEngine=model.plan --shapes=data:8x3x224x224 --dumpProfile
    twexec --deploy=deploy.prototxt --model=net.caffemodel --output=prob --batch=4
"""


def help_text() -> str:
    """All flags, by group; those without meaning here, and those that are refused, at the end of each."""
    lines = [_USAGE]
    for title, flags in GROUPS.items():
        lines += [f"=== {title} ===", *(line for flag in flags if flag.effect is Effect.ACTS for line in _entry(flag))]
        for effect, says in ((Effect.IDLE, "accepted, no meaning here"), (Effect.REFUSED, "refused")):
            names = [f"--{name}" for flag in flags if flag.effect is effect for name in (flag.name, *flag.aliases)]
            if names:
                lines += _wrapped(f"  {says}: ", names)
        lines.append("")
    return "\n".join(lines)


def _entry(flag: Flag) -> Iterator[str]:
    default = f" (default {flag.default})" if flag.default else ""
    words = f"{flag.help}{default}".split(" ")
    head = f"  {flag.usage:<36}  "
    if len(flag.usage) > 36:
        yield head.rstrip()
        head = " " * 40
    yield from _wrapped(head, words, " ")


def _wrapped(head: str, words: Iterable[str], between: str = ", ") -> list[str]:
    lines, indent = [head], " " * 40
    for word in words:
        first = lines[-1] in (head, indent)
        if len(lines[-1]) + len(word) > 116 and not first:
            lines[-1] = (lines[-1] + between).rstrip()
            lines.append(indent)
            first = True
        lines[-1] += word if first else between + word
    return lines


def _switch(on: bool) -> str:
    return "Enabled" if on else "Disabled"


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _shapes(shapes: Shapes) -> str:
    return ", ".join(f"{name}={_shape(shape)}" for name, shape in shapes.items()) or "model"


def echo(options: Options, log: Log) -> None:
    """The sections before the build."""
    sections: dict[str, dict[str, object]] = {
        "Model Options": _model(options),
        "Build Options": _build(options),
        "System Options": {
            "Device": "0",
            "Target": options.target,
            "DLACore": "",
            "Plugins": "",
        },
        "Inference Options": _inference(options),
        "Reporting Options": _reporting(options),
    }
    for title, rows in sections.items():
        log.info(f"=== {title} ===")
        for name, value in rows.items():
            log.info(f"{name}: {value}")
        log.info()


def _model(options: Options) -> dict[str, object]:
    model = options.model
    rows: dict[str, object] = {"Format": model.format or "*", "Model": model.path}
    if model.flag in ("deploy", "darknet"):
        rows["Weights"] = model.weights or "random"
    if options.classic and model.flag == "deploy":
        rows["Batch"] = model.batch or 1
    return {**rows, "Output": " ".join(model.outputs)}


def _build(options: Options) -> dict[str, object]:
    build = options.build
    workspace = "default" if build.workspace_bytes is None else f"{build.workspace_bytes / (1 << 20):.6g} MiB"
    rows: dict[str, object] = {
        "Memory Pools": f"workspace: {workspace}",
        "Precision": "FP32" + "".join(f" (+{name} allowed)" for name in build.lower),
        "Calibration": build.calib or "",
        "Builder optimization level": build.level,
        "Kernel timing": build.tune,
        "Timing cache": (build.timing_cache or "the user's") if build.keep_cache else "disabled",
        "Profiling verbosity": build.verbosity,
        "Save engine": build.save or "",
        "Load engine": build.load or "",
        "Skip inference": _switch(build.skip_inference),
        "Input(s)s format": _formats(build.input_formats),
        "Output(s)s format": _formats(build.output_formats),
    }
    for number, profile in enumerate(build.profiles):
        for name, shape in profile.opt.items():
            low, high = profile.min.get(name, shape), profile.max.get(name, shape)
            rows[f"Input build shape (profile {number}) {name}"] = f"{_shape(low)}+{_shape(shape)}+{_shape(high)}"
    if not build.profiles:
        rows["Input build shapes"] = _shapes(options.inference.shapes)
    return rows


def _formats(formats: tuple[str | None, ...]) -> str:
    return ",".join(f"{dtype or 'any'}:chw" for dtype in formats) or "as the model's, chw"


def _inference(options: Options) -> dict[str, object]:
    inference = options.inference
    duration = "endless" if inference.duration_s is None else f"{inference.duration_s:g}s"
    return {
        "Batch": (options.model.batch or 1) if options.model.flag == "deploy" else "Explicit",
        "Input inference shapes": _shapes(inference.shapes),
        "Iterations": inference.iterations,
        "Duration": f"{duration} (+ {inference.warm_up_ms:g}ms warm up)",
        "Sleep time": f"{inference.sleep_ms:g}ms",
        "Idle time": f"{inference.idle_ms:g}ms",
        "Inference Streams": inference.streams,
        "Data transfers": _switch(inference.transfers),
        "Optimization profile index": inference.profile,
        "Time Deserialize": _switch(inference.time_deserialize),
        "Inputs": "",
        **{f"  {name}": path for name, path in inference.load_inputs.items()},
    }


def _reporting(options: Options) -> dict[str, object]:
    report = options.report
    return {
        "Verbose": _switch(report.verbose),
        "Averages": f"{report.avg_runs} inferences",
        "Percentiles": ",".join(f"{p:g}" for p in report.percentiles),
        "Dump output": _switch(report.dump_output),
        "Profile": _switch(report.dump_profile),
        "Layer information": _switch(report.dump_layers),
        "Export timing to JSON file": report.export_times or "",
        "Export output to JSON file": report.export_output or "",
        "Export profile to JSON file": report.export_profile or "",
        "Export layer information to JSON file": report.export_layers or "",
    }


def device(options: Options, log: Log) -> None:
    """The machine."""
    import tensorwright
    from tensorwright.backends.cpu.target import CpuTarget
    from tensorwright.backends.cpu.threads import default_threads

    host = CpuTarget.probe()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    log.info("=== Device Information ===")
    rows = {
        "Available Devices": "",
        "  Device 0": f'"{cpu_name()}"',
        "Selected Device": cpu_name(),
        "Selected Device ID": 0,
        "Instruction set": f"{host.isa} ({host.cpu})",
        "Cores": host.cores,
        "Threads of an inference": default_threads(),
        "Device Global Memory": f"{memory >> 20} MiB",
        "Caches": f"L1 {host.l1_bytes >> 10} KiB, L2 {host.l2_bytes >> 10} KiB, L3 {host.l3_bytes >> 10} KiB",
        "Peak of a core": f"{host.gflops:.0f} GFLOP/s (fp32), {host.gbytes:.0f} GB/s",
        "Target": options.target,
    }
    for name, value in rows.items():
        log.info(f"{name}: {value}")
    log.info()
    log.info(f"Tensorwright version: {tensorwright.__version__}")


def cpu_name() -> str:
    """The CPU's own name, where the system tells."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":")[2].strip() for line in file if line.lower().startswith("model name")]
    except OSError:
        lines = []
    return next(filter(None, lines), platform.processor() or platform.machine())
