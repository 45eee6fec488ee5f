# SPDX-License-Identifier: Apache-2.0
"""Removes what no output depends on."""

from __future__ import annotations

from tensorwright.ir.graph import Edit, Graph, Node
from tensorwright.ir.op import Op
from tensorwright.passes.base import rule


@rule(on=Op, name="unread_into_nothing")
def unread_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """A node whose results nobody reads, and which decides no size of others."""
    if any(graph.is_output(v) or graph.users(v) for v in node.outputs) or graph.decides_for_others(node):
        return None
    return Edit((node,), because="nothing reads it")


RULES = (unread_into_nothing,)
