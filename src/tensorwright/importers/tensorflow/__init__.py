# SPDX-License-Identifier: Apache-2.0
"""TensorFlow: frozen GraphDefs, and SavedModels with their variables and functions."""
