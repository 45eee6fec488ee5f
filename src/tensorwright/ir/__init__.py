# SPDX-License-Identifier: Apache-2.0
"""The graph representation: types, dims, ops, graphs, their text form and verifier."""
