# SPDX-License-Identifier: Apache-2.0
"""Write a large ONNX model with external data, and measure the memory of building, saving, loading and running it.

    python bench/large_model.py write folder/large.onnx --blocks 5
    python bench/large_model.py measure folder/large.onnx

See docs/how-to/large-models.md.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper

ROWS = 16  # positions of the sequence
_PIECE = 1 << 20  # elements drawn at once
_PHASES = ("build", "save", "load")


class Writer:
    """Collects nodes and writes weights to the data file as they come."""

    def __init__(self, path: pathlib.Path, seed: int) -> None:
        self.data = path.with_name(f"{path.name}.data").open("wb")
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        """Random weights that keep the scale of activations; returns the name."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        self.data.seek(-self.data.tell() % 4096, 1)
        size = math.prod(shape)
        places = {"location": pathlib.Path(self.data.name).name, "offset": self.data.tell(), "length": 4 * size}
        for key, value in places.items():
            tensor.external_data.add(key=key, value=str(value))
        for start in range(0, size, _PIECE):
            piece = self.rng.standard_normal(min(_PIECE, size - start), dtype=np.float32)
            self.data.write((piece / np.float32(math.sqrt(shape[0]))).data)
        self.weights.append(tensor)
        return name

    def node(self, op: str, name: str, *inputs: str, **attributes: object) -> str:
        """A node with one output of its own name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def linear(self, name: str, x: str, inner: int, outer: int) -> str:
        """x @ weights + bias."""
        product = self.node("MatMul", f"{name}/product", x, self.weight(f"{name}.weight", inner, outer))
        return self.node("Add", name, product, self.weight(f"{name}.bias", outer))

    def block(self, name: str, x: str, width: int) -> str:
        """A projection and a feed-forward pair with Gelu, each after a LayerNorm and around a residual connection."""
        for part in ("mix", "feed"):
            scale, bias = self.weight(f"{name}.{part}.scale", width), self.weight(f"{name}.{part}.bias", width)
            h = self.node("LayerNormalization", f"{name}/{part}/norm", x, scale, bias, epsilon=1e-5)
            if part == "mix":
                h = self.linear(f"{name}/mix/linear", h, width, width)
            else:
                h = self.node("Gelu", f"{name}/gelu", self.linear(f"{name}/feed/up", h, width, 4 * width))
                h = self.linear(f"{name}/feed/down", h, 4 * width, width)
            x = self.node("Add", f"{name}/{part}/out", x, h)
        return x


def write(path: pathlib.Path, *, blocks: int, width: int, seed: int = 0) -> int:
    """Write the model and `<name>.data` beside it; returns the bytes of its weights. Needs a few MB of memory."""
    writer = Writer(path, seed)
    x = "x"
    for i in range(blocks):
        x = writer.block(f"block{i}", x, width)
    writer.data.close()
    shape = (1, ROWS, width)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", x)]
    graph = helper.make_graph(writer.nodes, "large", infos[:1], infos[1:], writer.weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return sum(4 * math.prod(tensor.dims) for tensor in writer.weights)


# -- one phase, in a process of its own ---------------------------------------------------------------
def memory() -> dict[str, int]:
    """Bytes of this process: resident now, its anonymous and mapped parts, and the peak of all."""
    rows = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return {key: int(rows[key].split()[0]) << 10 for key in ("VmRSS", "RssAnon", "RssFile", "VmHWM")}


def run(phase: str, model: pathlib.Path, tune: str) -> None:
    """Do one phase, telling `measure` on stdout where it is."""
    import tensorwright as tw
    from tensorwright.backends.cpu.target import CpuTarget

    plan, timings = model.with_suffix(".plan"), model.with_suffix(".timings")
    timings.unlink(missing_ok=True)  # so that the tuner measures
    np.zeros((64, 64), np.float32) @ np.zeros((64, 64), np.float32)
    CpuTarget.probe()
    say("start")
    started = time.perf_counter()
    engine = tw.load(plan) if phase == "load" else tw.build(str(model), tune=tune, timing_cache=timings)
    say("built" if phase != "load" else "loaded", seconds=time.perf_counter() - started)
    if phase == "save":
        started = time.perf_counter()
        engine.save(plan)
        say("saved", seconds=time.perf_counter() - started)
    info = engine.inputs[0]
    x = np.random.default_rng(1).standard_normal(info.static_shape, dtype=np.float32)
    y = np.asarray(engine(x))
    say("run", checksum=float(np.abs(y).sum()))
    contexts = [engine.create_context() for _ in range(3)]
    for context in contexts:
        context.run({info.name: x})
    say("three contexts", context_bytes=contexts[0].memory_bytes)


def say(what: str, **facts: float) -> None:
    """One JSON line with the memory of the process now."""
    print(json.dumps({"at": what, **memory(), **facts}), flush=True)


# -- all phases -------------------------------------------------------------------------------------
def watched(command: list[str]) -> tuple[list[dict[str, float]], int]:
    """What the process says, and the peak of its anonymous memory, read every few milliseconds."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    status = pathlib.Path(f"/proc/{child.pid}/status")
    peak = 0
    while child.poll() is None:
        try:
            peak = max(peak, *anonymous_bytes(status.read_text()))
        except OSError:
            break
        time.sleep(0.005)
    out, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return [json.loads(line) for line in out.splitlines()], peak


def anonymous_bytes(status: str) -> Iterator[int]:
    """The anonymous and shared memory in a process's status; 0 once it has ended."""
    yield 0
    rows = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if "RssAnon" in rows:
        yield (int(rows["RssAnon"].split()[0]) + int(rows["RssShmem"].split()[0])) << 10


def measure(model: pathlib.Path, tune: str, phases: list[str]) -> None:
    """Run the phases and print what each took, in MiB and in weights."""
    weights = model.with_name(f"{model.name}.data").stat().st_size
    print(f"weights {weights >> 20} MiB")
    for phase in phases:
        reports, peak = watched([sys.executable, __file__, "run", str(model), "--phase", phase, "--tune", tune])
        base = reports[0]
        for report in reports:
            facts = "  ".join(f"{key} {value:.4g}" for key, value in report.items() if key in ("seconds", "checksum"))
            print(
                f"{phase:6s}{report['at']:16s} anonymous {int(report['RssAnon']) >> 20:6d}  mapped files"
                f" {int(report['RssFile']) >> 20:6d}  peak of all {int(report['VmHWM']) >> 20:6d}  {facts}"
            )
        highest = max(report["VmHWM"] for report in reports)
        print(
            f"{phase:6s}above start: peak of anonymous memory {(peak - base['RssAnon']) / weights:.2f} x weights,"
            f" of all resident memory {(highest - base['VmRSS']) / weights:.2f} x weights"
        )


def main() -> None:
    """Parse arguments and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "measure", "run"))
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", default="quick")
    parser.add_argument("--phase", choices=_PHASES, action="append")
    arguments = parser.parse_args()
    if arguments.action == "write":
        size = write(arguments.model, blocks=arguments.blocks, width=arguments.width, seed=arguments.seed)
        print(f"{arguments.model}: weights of {size >> 20} MiB")
    elif arguments.action == "measure":
        measure(arguments.model, arguments.tune, arguments.phase or ["save", "load"])
    else:
        run(arguments.phase[0], arguments.model, arguments.tune)


if __name__ == "__main__":
    main()
