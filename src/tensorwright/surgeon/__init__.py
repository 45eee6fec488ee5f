# SPDX-License-Identifier: Apache-2.0
"""Cleaning, cutting and mending ONNX models: each function takes a ModelProto and returns a new, valid one."""
