# SPDX-License-Identifier: Apache-2.0
"""What every subcommand shares: its options, how it answers, how it fails."""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import traceback
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

from tensorwright.errors import InputError, InternalError, TensorwrightError
from tensorwright.shapes import Range

if TYPE_CHECKING:
    import numpy as np

    from tensorwright.runtime.engine import Engine

P = ParamSpec("P")

EXIT_ERROR, EXIT_INTERRUPTED = 2, 130

# -- options with one meaning everywhere ----------------------------------------------------------------------
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the Python traceback of an error.")]
Model = Annotated[str, typer.Argument(help="A model, as `build` takes it, or a plan.", show_default=False)]
ModelOnly = Annotated[
    str,
    typer.Argument(
        help="A model: .onnx, .prototxt (Caffe), .pb or a SavedModel folder (TensorFlow), .cfg (Darknet).",
        show_default=False,
    ),
]
Weights = Annotated[
    str, typer.Option("--weights", help="Weights of a Caffe or Darknet model; random without.", show_default=False)
]
Outputs = Annotated[
    list[str], typer.Option("--outputs", help="Tensors to compute, by comma, instead of those the model declares.")
]
Target = Annotated[str, typer.Option("--target", help="cpu, cpu:avx512, cpu:avx2, or reference (NumPy, slow).")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="Threads of a run; 0: all this process may use.")]
Tune = Annotated[str, typer.Option("--tune", help="off, quick or full: how many kernels are timed.")]
TimingCache = Annotated[str, typer.Option("--timing-cache", help="File of measured kernel times to read and extend.")]
Shapes = Annotated[
    list[str],
    typer.Option(
        "--shapes",
        metavar="NAME:DIMS",
        help="Shape of an input (data:1x3x224x224) or a range of shapes, min..opt..max.",
    ),
]


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Give a subcommand the errors of this tool: the text of a TensorwrightError, or its JSON, and exit code 2.

    The subcommand must have the options `as_json` and `debug`.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except typer.Exit:
            raise
        except Exception as error:  # noqa: BLE001  the boundary to the user: nothing leaves as a bare traceback
            fail(error, as_json=bool(kwargs.get("as_json")), debug=bool(kwargs.get("debug")))

    return guarded


def fail(error: Exception, *, as_json: bool, debug: bool) -> NoReturn:
    """Report `error` and leave with exit code 2. An error that is not ours is reported as a defect of ours."""
    known = error if isinstance(error, TensorwrightError) else _unforeseen(error)
    if debug:
        traceback.print_exception(error)
    if as_json:
        typer.echo(json.dumps(known.as_dict(), indent=2))
    else:
        typer.echo(str(known), err=True)
    raise typer.Exit(EXIT_ERROR)


def _unforeseen(error: Exception) -> InternalError:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.name} in {pathlib.Path(frame.filename).name}"
    return InternalError(
        f"{type(error).__name__}: {error}",
        where=place,
        why="an error that Tensorwright should have foreseen",
        code="X101",
        do="run again with --debug and report the traceback",
    )


def answer(data: Mapping[str, object], text: str | Callable[[], None], *, as_json: bool) -> None:
    """Print `data` as JSON when asked, else `text` (or call it to draw)."""
    if as_json:
        typer.echo(json.dumps(data, indent=2, default=str, allow_nan=False))
    elif callable(text):
        text()
    else:
        typer.echo(text)


def table(title: str, columns: Mapping[str, str], rows: list[list[object]]) -> None:
    """Draw a table; `columns` maps a heading to its side, "left" or "right"."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading, side in columns.items():
        drawn.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*[str(cell) for cell in row])
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(drawn)


# -- arguments as users type them -----------------------------------------------------------------------------
def parse_shapes(texts: list[str]) -> dict[str, Sequence[int] | Range] | None:
    """`["data:1x3x224x224"]` as `{"data": (1, 3, 224, 224)}`, and `data:1x3..8x3..32x3` as a Range; None when nothing
    was given.

    Raises InputError (I110) for anything else, BuildError (B110) for a range in the wrong order.
    """
    shapes: dict[str, Sequence[int] | Range] = {}
    for text in texts:
        name, colon, dims = text.rpartition(":")
        ends = [part.split("x") if part else [] for part in dims.split("..")]
        are_numbers = all(part.isdecimal() for end in ends for part in end)
        if not (colon and name and are_numbers and len(ends) in (1, 3)):
            raise InputError(
                f"cannot read the shape {text!r}",
                why="expected name:1x3x224x224, or name:MIN..OPT..MAX with three such shapes",
                code="I110",
                do="give --shapes once per input; `tensorwright inspect` lists the names",
            )
        numbers = [tuple(int(part) for part in end) for end in ends]
        shapes[name] = numbers[0] if len(numbers) == 1 else Range(*numbers)
    return shapes or None


def source(weights: str, outputs: list[str]) -> dict[str, Any]:
    """The options --weights and --outputs as `tw.build` takes them."""
    names = [name for text in outputs for name in text.split(",") if name]
    return {"weights": weights or None, "outputs": names or None}


def is_plan(path: str) -> bool:
    """Whether the file starts as a plan does; False when it cannot be read (opening it will say why)."""
    from tensorwright.plan.format import MAGIC

    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def open_engine(path: str, *, target: str = "cpu", threads: int = 0, **options: Any) -> Engine:
    """The engine of a plan, or one built from a model; `options` are those of `tw.build` and do not touch a plan."""
    import tensorwright as tw

    if is_plan(path):
        return tw.load(path, target=target, threads=threads or None)
    return tw.build(path, target=target, threads=threads or None, **options)


def machine() -> dict[str, object]:
    """The facts that a measured time depends on."""
    import os
    import platform

    from tensorwright.backends.cpu.target import CpuTarget
    from tensorwright.backends.cpu.threads import default_threads

    target = CpuTarget.probe()
    return {
        "isa": target.isa,
        "cpu": target.cpu,
        "cores": target.cores,
        "threads": default_threads(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def random_inputs(engine: Engine, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Seeded inputs that fit the engine: floats are standard normal, integers 0 or 1 (valid for any index).

    A dim that is free is 1; one with a range has its opt value. Inputs that are no numeric arrays are left out: they
    have to be given.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    ranges = engine.profiles[0]
    for item in engine.inputs:
        if item.is_object:
            continue
        free = tuple(dim if isinstance(dim, int) else 1 for dim in item.shape)
        shape = ranges[item.name].opt if item.name in ranges else free
        values = rng.standard_normal(shape) if item.dtype.is_float else rng.integers(0, 2, shape)
        arrays[item.name] = np.asarray(values, item.dtype.numpy)
    return arrays


def save_npz(path: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write named arrays as `numpy.load` reads them. Unlike numpy.savez it takes any name, and the path as it is.

    Raises TensorwrightError T111 when the file cannot be written.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    raise ValueError(f"{name!r} is a {type(array).__name__}, not an array")
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
    except (OSError, ValueError) as error:  # ValueError: strings and sequences, which a .npz file cannot hold
        raise TensorwrightError(
            "cannot write the arrays",
            where=path,
            why=getattr(error, "strerror", None) or str(error),
            do="check free space and permissions of the folder",
            code="T111",
        ) from None


def summary(array: object) -> dict[str, object]:
    """Facts about one array for people and scripts: type, shape, range, mean, and how many values are not finite."""
    import numpy as np

    if not isinstance(array, np.ndarray):  # a sequence or an optional
        return {"dtype": type(array).__name__, "shape": [len(array)] if isinstance(array, list) else []}
    facts: dict[str, object] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if array.size and array.dtype.kind in "fiu":
        finite = array[np.isfinite(array)]
        facts["not_finite"] = int(array.size - finite.size)
        if finite.size:
            facts |= {
                "min": float(finite.min()),
                "max": float(finite.max()),
                "mean": float(finite.mean(dtype=np.float64)),
            }
    return facts


def bytes_text(count: int) -> str:
    """A byte count with a binary unit and three digits (more only from 1000 GiB on)."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.0f} GiB" if value >= 1000 else f"{value:.3g} GiB"


def names_text(names: tuple[str, ...] | list[str], shown: int = 4) -> str:
    """The first few names, and how many more there are."""
    text = ", ".join(names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown} more"
