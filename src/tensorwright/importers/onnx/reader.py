# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX model into a Graph, collecting every problem before it fails."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import onnx
from onnx import GraphProto, NodeProto, TypeProto

from tensorwright.importers.onnx.builder import Builder, DataDependentError
from tensorwright.importers.onnx.check import described, needed_nodes, source_name
from tensorwright.importers.onnx.control_flow import WITH_BODIES
from tensorwright.importers.onnx.host import HostSteps, constant_node, missing_package
from tensorwright.importers.onnx.inputs import bind_shapes
from tensorwright.importers.onnx.load import LoadedModel, load_model
from tensorwright.importers.onnx.node import OnnxNode, RefusalError
from tensorwright.importers.onnx.prepare import (
    DEFAULT_DOMAINS,
    domain_of,
    is_onnx_domain,
    node_problem,
    op_key,
    schema_of,
)
from tensorwright.importers.onnx.registry import NEWEST_OPSET, OLDEST_OPSET, VERSIONS, find_op
from tensorwright.importers.onnx.scope import names_read, renamed_body
from tensorwright.importers.onnx.tensors import NO_NUMBERS, UnsupportedTypeError, array_of, declared_type
from tensorwright.importers.problems import Problems
from tensorwright.ir.dims import SymDim, substitute
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.types import ObjectType, TensorType
from tensorwright.shapes import Range

_REMEDY = "correct the model where it is exported; onnx.checker.check_model shows what else it finds"


def import_onnx(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int] | Range] | None = None,
    outputs: Sequence[str] | None = None,
    host_ops: bool = True,
) -> Graph:
    """The Graph of an ONNX model, for the opsets 7 to 28.

    `shapes` fixes or bounds the symbolic dims of inputs (input name to shape or Range; one input also binds the others
    that share its symbols), `outputs` chooses other tensors than the model's. Values carry the model's tensor names;
    origins are node names, or `OpType:output` for nameless nodes. Only what the outputs need is read.
    With `host_ops`, a node without an importer function becomes an `OnnxHost` node where ONNX's own reference
    implementation can run it; strings, sequences and optionals exist between such nodes only.

    Raises UnsupportedError M201 with all nodes that cannot be imported, or ModelError: M101 missing, M102 empty, M103
    unreadable, M104 inconsistent, M106 shapes= does not fit, M107 outputs= names an unknown tensor, M108 external data.
    """
    return _ModelReader(load_model(model), dict(shapes or {}), outputs, host_ops=host_ops).read()


class GraphReader:
    """Reads the nodes of one graph of a model: of the whole, or of a body, which also sees the values around it."""

    def __init__(
        self,
        model: LoadedModel,
        proto: GraphProto,
        nodes: Sequence[NodeProto],
        outputs: Sequence[str],
        builder: Builder,
        *,
        host_ops: bool,
    ) -> None:
        self.model, self.proto, self.nodes, self.outputs, self.builder = model, proto, nodes, outputs, builder
        self.initializers = {t.name: t for t in proto.initializer}
        self.read_names = {name for node in nodes for name in names_read(node)} | set(outputs)
        self.values: dict[str, Value | None] = {}  # None: could not be imported, and was reported
        self.problems = Problems("node", _REMEDY)
        self.opsets = {"" if o.domain in DEFAULT_DOMAINS else o.domain: o.version for o in model.proto.opset_import}
        self.host_steps = HostSteps(model.proto, builder) if host_ops else None
        self.prefixes: set[str] = set()  # of names inside the bodies read so far

    def read_nodes(self) -> None:
        """Read all nodes; `problems` then says what stood in the way."""
        for node in self.nodes:
            self._read_node(node)

    def value(self, name: str) -> Value | None:
        """The value of a tensor name, None where that was reported; initializers are converted when first read."""
        if name not in self.values:
            self.values[name] = None
            try:
                self._read_from_outside(name)
            except UnsupportedTypeError as error:
                self.problems.refuse("initializer", name, str(error))
            except ValueError as error:
                kind = "initializer" if name in self.initializers else "tensor"
                self.problems.mistake(f"{kind} {name!r}: {error}")
        return self.values[name]

    def _read_from_outside(self, name: str) -> None:
        """Find a value that no node made so far."""
        tensor = self.initializers.get(name)
        if tensor is None:
            raise ValueError("nothing makes it before it is read")
        if self.host_steps is not None and tensor.data_type in NO_NUMBERS:
            self._as_host_step(constant_node(tensor), {})
        else:
            self.values[name] = self.builder.constant(array_of(tensor, self.model.data), name)

    def _read_node(self, node: NodeProto) -> None:
        self.values.update(dict.fromkeys(filter(None, node.output)))
        names = names_read(node)
        values = {name: self.value(name) for name in names}
        obstacle = self._obstacle(node)
        if obstacle is not None and not self._may_be_host_step(node):
            self._refuse(node, *obstacle)
            return
        inputs = {name: value for name, value in values.items() if value is not None}
        if len(inputs) != len(values):
            return  # what is wrong there was reported
        self.builder.source = source_name(node)
        try:
            known = domain_of(node) or schema_of(node.op_type, self.model.opset) is not None
            mistake = node_problem(node, self.opsets, self.model.proto.ir_version) if known else None
            if mistake is None and not self._inlined(node, inputs):
                self._convert(node, inputs, obstacle)
        except (ValueError, ArithmeticError, IndexError) as error:
            mistake = str(error)
        if mistake is not None:
            self.problems.mistake(f"{described(node)}: {mistake}")

    def _convert(self, node: NodeProto, inputs: Mapping[str, Value], obstacle: tuple[str, str] | None) -> None:
        """By an importer function, or else as a host step, or else report why not."""
        bodies = WITH_BODIES.get(op_key(node))
        if obstacle is None and any(isinstance(v.type, ObjectType) for v in inputs.values()):
            obstacle = "it reads values that are no arrays of numbers", ""
        if obstacle is None:
            try:
                if bodies is not None:
                    self._bind(bodies(self, node, inputs))
                else:
                    self._translate(node, [inputs[name] if name else None for name in node.input])
                return
            except RefusalError as refusal:
                obstacle = refusal.reason, refusal.do
            except (UnsupportedTypeError, DataDependentError) as error:
                obstacle = str(error), ""
        reason = obstacle[0] if bodies is not None else ""
        if not self._as_host_step(node, inputs, reason):
            self._refuse(node, *obstacle)

    def _bind(self, made: Mapping[str, Value]) -> None:
        self.values.update(made)
        for name, value in made.items():
            self.builder.bind(value, name)

    def _obstacle(self, node: NodeProto) -> tuple[str, str] | None:
        """Why there is no importer function for the node, and what helps; None when there is one."""
        domain, key = domain_of(node), op_key(node)
        opset = self.opsets.get(domain, 0)
        if not domain and not OLDEST_OPSET <= opset <= NEWEST_OPSET:
            return (
                f"this version reads the opsets {OLDEST_OPSET} to {NEWEST_OPSET}, not {opset}",
                "convert the model with onnx.version_converter.convert_version(model, 17)",
            )
        if find_op(key, opset) is not None or key in WITH_BODIES:
            return None
        if domain and not any(name.startswith(f"{domain}.") for name in VERSIONS) and not is_onnx_domain(domain):
            return f"the domain {domain!r} is not known", "export with standard ONNX operators only"
        if schema_of(node.op_type, opset, domain) is None:
            where = f"opset {opset} of ONNX" if not domain else f"this version for the domain {domain!r}"
            return f"{where} has no such operator", "export the model again with standard operators"
        return missing_package(node.op_type) or (
            "this version has no importer for the operator",
            "replace the operator where the model is exported, or ask for it in the issue tracker",
        )

    def _may_be_host_step(self, node: NodeProto) -> bool:
        domain = domain_of(node)
        schema = schema_of(node.op_type, self.opsets.get(domain, 0), domain)
        return self.host_steps is not None and schema is not None

    def _as_host_step(self, node: NodeProto, inputs: Mapping[str, Value], reason: str = "") -> bool:
        """Whether the node became a host step; `reason` is what it says of itself."""
        if self.host_steps is None or not self._may_be_host_step(node):
            return False
        read = [name for name in node.output if name in self.read_names]
        made = self.host_steps.add(node, inputs, read, reason)
        if isinstance(made, str):
            return False
        self._bind(made)
        return True

    def _inlined(self, node: NodeProto, inputs: Mapping[str, Value]) -> bool:
        """Whether the node is an If with a known condition, which becomes the nodes of that branch."""
        condition = self.builder.known(inputs.get(node.input[0])) if node.op_type == "If" and node.input else None
        if domain_of(node) or condition is None or condition.size != 1:
            return False
        wanted = "then_branch" if condition.reshape(-1)[0] else "else_branch"
        branch = next((a.g for a in node.attribute if a.name == wanted), None)
        if branch is None or len(branch.output) != len(node.output):
            raise ValueError(f"its {wanted} does not have {len(node.output)} outputs")
        body = renamed_body(branch, f"{source_name(node)}/")
        self.initializers |= {tensor.name: tensor for tensor in body.initializer}
        self.read_names.update(info.name for info in body.output)
        self.read_names.update(name for inner in body.node for name in names_read(inner))
        if self.host_steps is not None:
            self.host_steps.declare((*body.value_info, *body.output))
        for inner in body.node:
            self._read_node(inner)
        for name, info in zip(node.output, body.output, strict=True):
            value = self.value(info.name)
            if name and value is not None:
                self.values[name] = value
                self.builder.bind(value, name)
        return True

    def _translate(self, node: NodeProto, inputs: Sequence[Value | None]) -> None:
        entry = find_op(op_key(node), self.opsets[domain_of(node)])
        if entry is None:
            raise RefusalError("this version has no importer for the operator")
        onnx_node = OnnxNode(
            node,
            self.opsets[domain_of(node)],
            inputs,
            [name in self.read_names for name in node.output],
            self.builder,
        )
        result = entry.translate(self.builder, onnx_node)
        results = [result] if isinstance(result, Value) else list(result)
        unread = onnx_node.unread_attributes()
        if unread:
            raise RefusalError(f"its attribute {', '.join(map(repr, unread))} is not supported")
        for index, name in enumerate(node.output):
            if index >= len(results) and onnx_node.output_used(index):
                raise RefusalError(
                    f"its output {name!r} is not computed by this version", "remove the readers of that output"
                )
        self._bind({name: value for name, value in zip(node.output, results, strict=False) if name})

    def _refuse(self, node: NodeProto, reason: str, do: str = "") -> None:
        self.problems.refuse(op_key(node), source_name(node), reason, do)

    def body(self, graph: GraphProto, prefix: str) -> BodyReader:
        """A reader for a body inside this graph, whose names will begin with the prefix (or a longer one)."""
        while prefix in self.prefixes:
            prefix += "_"
        self.prefixes.add(prefix)
        return BodyReader(self, renamed_body(graph, f"{prefix}/"), prefix)


class BodyReader(GraphReader):
    """Reads a body. What it reads from around it becomes a constant or an input of its own: `captured` maps the outer
    name of each such input to the value outside."""

    def __init__(self, outer: GraphReader, proto: GraphProto, prefix: str) -> None:
        builder = Builder(prefix, outer.model.data, outer.builder)
        builder.data_symbols = outer.builder.data_symbols
        outputs, host_ops = [info.name for info in proto.output], outer.host_steps is not None
        super().__init__(outer.model, proto, list(proto.node), outputs, builder, host_ops=host_ops)
        if self.host_steps is not None:
            self.host_steps.declare((*proto.value_info, *proto.output))
        self.outer, self.prefix, self.prefixes = outer, prefix, outer.prefixes
        self.captured: dict[str, Value] = {}

    def give(self, name: str, type: TensorType) -> Value:
        """An input of the body."""
        value = self.values[name] = self.builder.input(name, type)
        return value

    def _read_from_outside(self, name: str) -> None:
        if name in self.initializers:
            super()._read_from_outside(name)
            return
        around = self.outer.value(name)
        if around is None or isinstance(around.type, ObjectType):
            raise UnsupportedTypeError("it is no array of numbers")
        array, inside = self.outer.builder.known(around), f"{self.prefix}/{name}"
        if array is not None:
            self.values[name] = self.builder.constant(array, inside)
            return
        self.captured[name] = around
        value = self.values[name] = self.builder.input(inside, around.type)
        contents = self.outer.builder.contents(around)
        if contents is not None and TensorType(around.type.dtype, tuple(contents.flat)).is_bounded:
            self.builder.tell(value, contents)


class _ModelReader(GraphReader):
    """Reads a whole model."""

    def __init__(
        self,
        model: LoadedModel,
        shapes: Mapping[str, Sequence[int] | Range],
        outputs: Sequence[str] | None,
        *,
        host_ops: bool,
    ) -> None:
        proto = model.proto.graph
        nodes = needed_nodes(model, outputs)
        wanted = list(outputs) if outputs is not None else [o.name for o in proto.output]
        builder = Builder(proto.name or "network", model.data)
        super().__init__(model, proto, nodes, wanted, builder, host_ops=host_ops)
        types, self.bindings = bind_shapes(model, self.initializers, shapes, self.problems, objects=host_ops)
        for name, input_type in types.items():
            self.values[name] = None if input_type is None else builder.input(name, input_type)

    def read(self) -> Graph:
        """The graph. Raises what `import_onnx` says."""
        self.read_nodes()
        outputs = [(name, self.value(name)) for name in self.outputs]
        self._check_declared_types()
        self.problems.raise_any(f"{self.model.where}, opset {self.model.opset}")
        return self.builder.finish([(name, value) for name, value in outputs if value is not None])

    def _check_declared_types(self) -> None:
        """What the model says of its outputs, and of the dtypes inside it, must be what its nodes compute."""
        makers = {name: described(node) for node in self.nodes for name in node.output}
        for info in (*self.proto.value_info, *self.proto.output):
            value = self.values.get(info.name)
            declared = "" if value is None else self._contradiction(value, info.type, whole=info.name in self.outputs)
            if value is not None and declared:
                maker = makers.get(info.name, "the model")
                self.problems.mistake(f"{maker} makes {info.name!r} as {value.type}, but it is declared as {declared}")

    def _contradiction(self, value: Value, declared: TypeProto, *, whole: bool) -> str:
        """The declaration when it contradicts the value's type: dtype always, shape when `whole`."""
        if isinstance(value.type, ObjectType):
            return ""  # that type was taken from here, or is less than what is declared
        try:
            dtype, shape = declared_type(declared, lambda axis, name: SymDim.symbol(name or f"?{axis}"))
        except UnsupportedTypeError as error:
            return f"something that {error}"
        if dtype is not None and dtype is not value.type.dtype:
            return str(dtype)
        if not whole or shape is None:
            return ""
        shape = tuple(substitute(d, self.bindings) for d in shape)
        pairs = zip(shape, value.type.shape, strict=False)
        fits = len(shape) == value.type.rank and not any(
            isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs
        )
        return "" if fits else f"[{','.join(map(str, shape))}]"
