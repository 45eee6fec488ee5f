# SPDX-License-Identifier: Apache-2.0
"""ONNX: `reader` is the entry, `registry` lists the operators, and the `ops_*` files translate them by family."""
