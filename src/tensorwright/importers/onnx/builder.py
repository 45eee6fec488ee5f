# SPDX-License-Identifier: Apache-2.0
"""The builder that ONNX importer functions write to."""

from __future__ import annotations

from tensorwright.importers.builder import Builder as SharedBuilder
from tensorwright.importers.builder import DataDependentError as DataDependentError
from tensorwright.importers.onnx.external import TensorData


class Builder(SharedBuilder):
    """A builder that also has the bytes of the model's tensors: `data`."""

    def __init__(self, name: str, data: TensorData | None = None, around: Builder | None = None) -> None:
        super().__init__(name, around)
        self.data = data or TensorData(None)
