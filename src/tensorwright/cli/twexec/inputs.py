# SPDX-License-Identifier: Apache-2.0
"""The values that an engine is run on: from raw files, or random."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from tensorwright.cli.twexec.options import Options, Shapes
from tensorwright.cli.twexec.shapes import matched_shapes
from tensorwright.errors import InputError
from tensorwright.ir.op import Array

if TYPE_CHECKING:
    from tensorwright.plan.interface import TensorInfo
    from tensorwright.runtime.engine import Engine

_SEED = 0


def inference_shapes(engine: Engine, options: Options) -> Shapes:
    """The shape of every input: as --shapes says, else --batch for a plan, else what the profile is tuned for. A dim
    without bounds is 1.

    Raises InputError I112 for a name that no input has, I116 for an input that is no numeric array.
    """
    strange = [str(info) for info in engine.inputs if info.is_object]
    if strange:
        raise InputError(
            "twexec cannot make values for inputs that are no numeric arrays",
            why=strange,
            do="run the engine from Python",
            code="I116",
        )
    inference = options.inference
    given = matched_shapes(inference.shapes, [info.name for info in engine.inputs], "shapes")
    ranges = engine.profiles[inference.profile]
    found: Shapes = {}
    for info in engine.inputs:
        free = tuple(dim if isinstance(dim, int) else 1 for dim in info.shape)
        shape = given.get(info.name, ranges[info.name].opt if info.name in ranges else free)
        assert isinstance(shape, tuple)
        if options.build.load and options.model.batch is not None and info.name not in given and shape:
            shape = (options.model.batch, *shape[1:])
        found[info.name] = shape
    return found


def samples(shapes: Shapes, options: Options) -> int:
    """The samples of a query: the batch where there is one, else 1."""
    if options.model.flag != "deploy" and options.model.batch is None:
        return 1
    firsts = {shape[0] for shape in shapes.values() if shape}
    return firsts.pop() if len(firsts) == 1 else 1


def make_inputs(engine: Engine, shapes: Shapes, options: Options) -> dict[str, Array]:
    """An array for every input: read from its file, else random (floats from -1 to 1, whole numbers 0 or 1, which are
    valid as any index), the same in every run.

    Raises InputError I112 for a file of no input, I117 for one of another size.
    """
    files = matched_shapes(options.inference.load_inputs, [info.name for info in engine.inputs], "loadInputs")
    rng = np.random.default_rng(_SEED)
    arrays: dict[str, Array] = {}
    for info in engine.inputs:
        shape = shapes[info.name]
        if info.name in files:
            arrays[info.name] = _read(str(files[info.name]), info, shape)
            continue
        values = rng.uniform(-1, 1, shape) if info.dtype.is_float else rng.integers(0, 2, shape)
        arrays[info.name] = np.asarray(values, info.dtype.numpy)
    return arrays


def _read(path: str, info: TensorInfo, shape: tuple[int, ...]) -> Array:
    dtype = info.dtype.numpy
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    found = os.path.getsize(path)
    if found != wanted:
        raise InputError(
            f"the file for input {info.name!r} has the wrong size",
            where=path,
            why=f"it has {found} bytes; {info.dtype}[{','.join(map(str, shape))}] has {wanted}",
            do="write the raw little-endian values, and nothing else; --shapes says the shape",
            code="I117",
        )
    with open(path, "rb") as file:
        values: Array = np.frombuffer(bytearray(file.read()), dtype)
    return values.reshape(shape)
