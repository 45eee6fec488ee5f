# SPDX-License-Identifier: Apache-2.0
"""Entry point of `twexec`: reads the command line, builds or loads, runs, reports.

The first line is `&&&& RUNNING ...`, the last `&&&& PASSED ...` (exit code 0) or `&&&& FAILED ...` (exit code 1).
"""

from __future__ import annotations

import errno
import os
import pathlib
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorwright
from tensorwright.cli.twexec.echo import device, echo, help_text
from tensorwright.cli.twexec.files import check_files
from tensorwright.cli.twexec.log import Log
from tensorwright.cli.twexec.options import Options
from tensorwright.cli.twexec.parse import parse
from tensorwright.cli.twexec.read import read_options
from tensorwright.errors import InternalError, TensorwrightError

if TYPE_CHECKING:
    from tensorwright.cli.twexec.layers import Layer
    from tensorwright.cli.twexec.measure import Stream
    from tensorwright.runtime.engine import Engine


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (the process's own, or `argv` without the program's name) and return the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        if not words or "--help" in words or "-h" in words:
            sys.stdout.write(help_text())
            return 0
        return _tested(words)
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _tested(words: Sequence[str]) -> int:
    log = Log(sys.stdout)
    shown = " ".join(shlex.quote(word) if not word or any(map(str.isspace, word)) else word for word in words)
    tail = " ".join(f"Tensorwright.twexec [Tensorwright v{version_number()}] # twexec {shown}".splitlines())
    log.raw(f"&&&& RUNNING {tail}")
    passed = False
    try:
        options = read_options(parse(words))
        log.verbose = options.report.verbose
        with log.library():
            _run(options, log)
        passed = True
    except TensorwrightError as error:
        log.error(str(error))
    except KeyboardInterrupt:
        log.error("interrupted")
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  the boundary to the user: nothing leaves as a bare traceback
        log.detail("".join(traceback.format_exception(error)))
        log.error(str(_foreign(error)))
    log.raw(f"&&&& {'PASSED' if passed else 'FAILED'} {tail}")
    return 0 if passed else 1


def version_number() -> str:
    """The version as one number, two digits each for minor and patch: 0.1.0 is 0100."""
    major, minor, patch = (
        int("".join(filter(str.isdigit, part)) or 0) for part in tensorwright.__version__.split(".")[:3]
    )
    return f"{major * 10000 + minor * 100 + patch:04d}"


def _foreign(error: Exception) -> TensorwrightError:
    """An error that is not ours: want of memory, or a defect."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return TensorwrightError(
            "there is not enough memory",
            why=str(error),
            do="run smaller shapes, a smaller batch, or fewer streams",
            code="T124",
        )
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return InternalError(
        f"{type(error).__name__}: {error}",
        where=f"{frame.name} in {pathlib.Path(frame.filename).name}",
        why="an error that Tensorwright should have foreseen",
        code="X101",
        do="run again with --verbose and report the traceback",
    )


def _run(options: Options, log: Log) -> None:
    from tensorwright.cli.twexec import build, report

    for name, why in options.idle:
        log.warning(f"--{name} has no meaning on target {options.target}: {why}")
    check_files(options)
    if options.build.version_only:
        assert options.build.load is not None
        log.info(f"Plan was created with: {build.plan_version(options.build.load)}")
        return
    echo(options, log)
    device(options, log)
    if options.inference.time_deserialize:
        build.time_deserialize(options, log)
        return
    _say_precision(options, log)
    opened = build.open_engine(options, log)
    with opened.engine as engine:
        build.describe(opened, options, log)
        if options.model.flag == "deploy" and not options.model.outputs:
            names = ", ".join(info.name for info in engine.outputs)
            log.warning(f"No --output was given: the outputs are what no layer reads: {names}")
        layers = _layers(engine, options, log) if options.report.wants_layers else []
        if options.report.dump_optimization_profile:
            report.optimization_profiles(engine, log)
        if options.build.skip_inference:
            log.info("Skipped inference phase since --skipInference is added.")
            return
        _infer(engine, layers, options, log)


def _say_precision(options: Options, log: Log) -> None:
    build = options.build
    if build.load:
        return
    if build.lower:
        names = ", ".join(f"--{name}" for name in build.lower)
        log.warning(f"{names}: lower precision is allowed, and not used: this version builds fp32 only")
    if build.calib:
        log.warning(f"--calib: {build.calib} is there, and is not used: this version builds fp32 only")


def _layers(engine: Engine, options: Options, log: Log) -> list[Layer]:
    """The layers of the profile that is run, reported as the options say."""
    from tensorwright.cli.twexec import export, files, layers, report

    plans = (engine.plan, *engine.plan.profiles)
    number = min(options.inference.profile, len(plans) - 1)  # the context says what is wrong with the number
    found = layers.layers_of(plans[number], is_reference=options.target == "reference")
    bindings = [info.name for info in (*engine.inputs, *engine.outputs)]
    verbosity = options.build.verbosity
    if options.report.dump_layers:
        report.layer_info(found, bindings, verbosity, log)
    if options.report.export_layers:
        files.write_json(
            options.report.export_layers, export.layer_info(found, bindings, verbosity, options.model.format)
        )
    return found


def _infer(engine: Engine, layers: list[Layer], options: Options, log: Log) -> None:
    from tensorwright.cli.twexec import export, files, inputs, measure, report

    engine.create_context(options.inference.profile).close()  # refuses a profile that is not there
    shapes = inputs.inference_shapes(engine, options)
    feeds = inputs.make_inputs(engine, shapes, options)
    for name, shape in shapes.items():
        origin = options.inference.load_inputs.get(name, "random values")
        log.info(f"Input {name}: {'x'.join(map(str, shape)) or 'scalar'}, {origin}")
    streams = measure.make_streams(engine, feeds, options.inference)
    log.info("Starting inference")
    trace = measure.measure(streams, options.inference)
    report.performance(trace, inputs.samples(shapes, options), options, log)
    _say_outputs(engine, streams[0], options, log)
    if options.report.export_times:
        files.write_rows(options.report.export_times, export.times(trace))
    if options.report.wants_profile:
        durations, order = measure.profile(streams[0], options.inference)
        rows = export.profile_rows(layers, durations, order)
        if options.report.dump_profile:
            report.layer_profile(rows, len(durations), log)
        if options.report.export_profile:
            export.export_profile(options.report.export_profile, rows, len(durations))


def _say_outputs(engine: Engine, stream: Stream, options: Options, log: Log) -> None:
    from tensorwright.cli.twexec import export, report

    results = dict(zip([info.name for info in engine.outputs], stream.results, strict=True))
    if options.report.dump_output:
        report.outputs(results, log)
    if options.report.export_output:
        export.export_outputs(options.report.export_output, results)
    if options.report.dump_raw:
        given = dict(zip([info.name for info in engine.inputs], stream.bound, strict=True))
        for path in export.dump_raw(given, results):
            log.info(f"Wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
