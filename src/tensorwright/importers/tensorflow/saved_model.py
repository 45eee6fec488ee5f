# SPDX-License-Identifier: Apache-2.0
"""SavedModels: being written."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from tensorwright.errors import ModelError
from tensorwright.importers.problems import Problems
from tensorwright.importers.tensorflow.graph_def import TfGraph


def load_saved_model(folder: pathlib.Path, outputs: Sequence[str] | None, problems: Problems) -> TfGraph:
    """The TfGraph."""
    raise ModelError("SavedModels are not read yet", where=str(folder), code="M105")
