# SPDX-License-Identifier: Apache-2.0
"""Tensorwright turns a trained network into an engine built for the machine in front of it, and runs it.

    import tensorwright as tw

    engine = tw.build("model.onnx")     # import, optimise, tune, compile
    engine.save("model.plan")
    y = tw.load("model.plan")(x)        # nothing but NumPy arrays in and out

Names are loaded on first use: importing the package costs next to nothing, and a process that only loads plans
never imports the builder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tensorwright import errors

if TYPE_CHECKING:
    from tensorwright.builder import build
    from tensorwright.ir.dtype import DType
    from tensorwright.network import Network
    from tensorwright.runtime.context import Context
    from tensorwright.runtime.engine import Engine
    from tensorwright.runtime.load import load
    from tensorwright.shapes import Range

__version__ = "0.1.0"

__all__ = ["Context", "DType", "Engine", "Network", "Range", "__version__", "build", "errors", "load"]

_HOME = {
    "build": "tensorwright.builder",
    "load": "tensorwright.runtime.load",
    "Network": "tensorwright.network",
    "Engine": "tensorwright.runtime.engine",
    "Context": "tensorwright.runtime.context",
    "Range": "tensorwright.shapes",
    "DType": "tensorwright.ir.dtype",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'tensorwright' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
