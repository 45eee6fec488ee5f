# SPDX-License-Identifier: Apache-2.0
"""Rewrites of the graph: rules propose edits, the runner applies them, the pipeline says in which order."""
