# SPDX-License-Identifier: Apache-2.0
"""The passes in order."""

from __future__ import annotations

from dataclasses import dataclass

from tensorwright import knobs
from tensorwright.ir.graph import Graph
from tensorwright.passes import (
    common_subexpressions,
    control_flow,
    decompose_double,
    decompose_moves,
    flatten_into_matmul,
    fold_batch_norm,
    fold_constants,
    fuse_pointwise,
    fuse_vertical,
    normal_form,
    recognise_activations,
    recognise_attention,
    recognise_norms,
    remove_dead,
    simplify_arithmetic,
    simplify_shapes,
    solve_layout,
)
from tensorwright.passes.base import Stage
from tensorwright.passes.fuse_horizontal import horizontal
from tensorwright.passes.report import Report
from tensorwright.passes.runner import run_stages


@dataclass(frozen=True, slots=True)
class PassOptions:
    """What a caller may choose. None for `stop_after_edits` and `check` means the environment variable."""

    horizontal: bool = True
    horizontal_kernels: int = 1
    horizontal_into_concat: bool = False
    stop_after_edits: int | None = None
    check: str | None = None


def optimise(graph: Graph, *, options: PassOptions | None = None) -> Report:
    """Optimise a copy of `graph` for the CPU; `Report.graph` is the result.

    In it every pointwise node is inside a `Fused` node (but those on f8 and smaller types), no convolution has a bias
    input and there is no BatchNorm. Raises InternalError when a pass is wrong, ModelError when a constant
    expression is. The passes run inside bodies, too, where the limit of edits counts for each by itself.
    """
    options = options if options is not None else PassOptions()
    stop = options.stop_after_edits if options.stop_after_edits is not None else knobs.STOP_AFTER_EDITS.get()
    return run_stages(graph, stages(options), stop_after_edits=stop, check=options.check)


def stages(options: PassOptions) -> tuple[Stage, ...]:
    """The pipeline, in order."""
    bodies = (*control_flow.RULES, *control_flow.INLINED)
    simplify = (*fold_constants.RULES, *simplify_arithmetic.RULES, *simplify_shapes.RULES, *bodies)
    into_bodies = control_flow.bodies_rule(lambda body: optimise(body, options=options))
    inside = (*control_flow.RULES, into_bodies, *remove_dead.RULES)
    layout = (*solve_layout.RULES, *simplify_shapes.RULES, *fold_constants.RULES, *remove_dead.RULES)
    wide = horizontal(kernels=options.horizontal_kernels, into_concat=options.horizontal_into_concat)
    siblings = (wide, *simplify_shapes.RULES, *remove_dead.RULES)  # its slices may meet others
    return (
        Stage("fold_constants", "what does not depend on the inputs is computed now", fold_constants.RULES),
        Stage("simplify", "what does nothing goes, what is dear becomes cheap", simplify),
        Stage("common_subexpressions", "equal expressions are computed once", common_subexpressions.RULES),
        Stage("remove_dead", "what nobody reads goes", remove_dead.RULES),
        Stage("solve_layout", "channels-last networks lose their transpositions", layout),
        Stage("settle_layout", "transpositions left over that move nothing", solve_layout.SETTLED_RULES),
        Stage("fold_batch_norm", "scales and shifts go into weights and biases", fold_batch_norm.RULES),
        Stage("recognise_activations", "activations written as arithmetic become one op", recognise_activations.RULES),
        Stage("recognise_norms", "layer norm and softmax written as arithmetic become one op", recognise_norms.RULES),
        Stage("recognise_attention", "attention becomes one op without a score matrix", recognise_attention.RULES),
        Stage("flatten_into_matmul", "images are flattened in memory order", flatten_into_matmul.RULES),
        Stage("decompose_moves", "pads and repetitions become views and copies", decompose_moves.RULES, required=True),
        Stage("decompose_double", "f64 rows and attention become arithmetic", decompose_double.RULES, required=True),
        Stage("simplify_again", "what the stages above left over", simplify),
        Stage("common_subexpressions_again", "what became equal", common_subexpressions.RULES),
        Stage("remove_dead_again", "what became unread", remove_dead.RULES),
        Stage("fuse_horizontal", "siblings on one input become one wide op", siblings if options.horizontal else ()),
        Stage("normal_form", "biases and leftover batch norms become pointwise", normal_form.RULES, required=True),
        Stage("fuse_vertical", "pointwise work moves into the op before it", fuse_vertical.RULES),
        Stage("fuse_pointwise", "other pointwise nodes share one pass over memory", fuse_pointwise.RULES),
        Stage("wrap_pointwise", "pointwise nodes left over become regions", fuse_pointwise.SINGLE_RULES, required=True),
        Stage("bodies", "all this happens inside bodies, too", inside, required=True),
    )
