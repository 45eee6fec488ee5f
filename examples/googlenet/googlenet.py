# SPDX-License-Identifier: Apache-2.0
"""GoogLeNet (Szegedy et al., "Going Deeper with Convolutions", 2014) as a Caffe prototxt, written by a few functions.

As a program it prints the prototxt: `python examples/googlenet/googlenet.py > googlenet.prototxt`.
"""

from __future__ import annotations

INCEPTIONS = {  # channels: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection of the pool
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED_AFTER = {"3b": "pool3", "4e": "pool4"}


class Prototxt:
    """Appends layers; each method returns the name of the blob that it makes."""

    def __init__(self, name: str, size: int) -> None:
        self.lines = [f'name: "{name}"']
        self._layer("Input", "data", (), "data", f"input_param {{ shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }} }}")

    def _layer(self, type: str, name: str, bottoms: tuple[str, ...], top: str, parameters: str = "") -> str:
        read = "".join(f' bottom: "{bottom}"' for bottom in bottoms)
        self.lines.append(f'layer {{ name: "{name}" type: "{type}"{read} top: "{top}" {parameters} }}')
        return top

    def convolution(self, name: str, x: str, channels: int, kernel: int, stride: int = 1) -> str:
        """A convolution that keeps the size but for its stride, and a ReLU in place."""
        sizes = f"num_output: {channels} kernel_size: {kernel} pad: {kernel // 2} stride: {stride}"
        fillers = 'weight_filler { type: "msra" } bias_filler { type: "constant" value: 0.1 }'
        y = self._layer("Convolution", name, (x,), name, f"convolution_param {{ {sizes} {fillers} }}")
        return self._layer("ReLU", name.replace("/", "/relu_"), (y,), y)

    def pool(self, name: str, x: str, kernel: int, stride: int, pad: int = 0, kind: str = "MAX") -> str:
        """Pooling, as always in Caffe with sizes that round up."""
        sizes = f"pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad}"
        return self._layer("Pooling", name, (x,), name, f"pooling_param {{ {sizes} }}")

    def lrn(self, name: str, x: str) -> str:
        """Local response normalisation over five channels."""
        return self._layer("LRN", name, (x,), name, "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def inception(self, name: str, x: str, channels: tuple[int, ...]) -> str:
        """Four branches on one input, and their channels together."""
        one, three_reduce, three, five_reduce, five, projection = channels
        branches = (
            self.convolution(f"{name}/1x1", x, one, 1),
            self.convolution(f"{name}/3x3", self.convolution(f"{name}/3x3_reduce", x, three_reduce, 1), three, 3),
            self.convolution(f"{name}/5x5", self.convolution(f"{name}/5x5_reduce", x, five_reduce, 1), five, 5),
            self.convolution(f"{name}/pool_proj", self.pool(f"{name}/pool", x, 3, 1, 1), projection, 1),
        )
        return self._layer("Concat", f"{name}/output", branches, f"{name}/output")

    def classifier(self, x: str, size: int, classes: int) -> str:
        """The average of each channel, a dense layer, probabilities."""
        x = self.pool("pool5", x, size, 1, kind="AVE")
        x = self._layer("Dropout", "drop", (x,), x, "dropout_param { dropout_ratio: 0.4 }")
        dense = f'num_output: {classes} weight_filler {{ type: "xavier" }}'
        x = self._layer("InnerProduct", "classifier", (x,), "classifier", f"inner_product_param {{ {dense} }}")
        return self._layer("Softmax", "prob", (x,), "prob")


def googlenet(size: int = 224, classes: int = 1000) -> str:
    """The prototxt; input "data" f32[1, 3, size, size], output "prob". `size` is a multiple of 32."""
    if size % 32:
        raise ValueError(f"the image's size must be a multiple of 32, not {size}")
    p = Prototxt("GoogLeNet", size)
    x = p.pool("pool1", p.convolution("conv1/7x7_s2", "data", 64, 7, 2), 3, 2)
    x = p.convolution("conv2/3x3_reduce", p.lrn("pool1/norm1", x), 64, 1)
    x = p.pool("pool2", p.lrn("conv2/norm2", p.convolution("conv2/3x3", x, 192, 3)), 3, 2)
    for name, channels in INCEPTIONS.items():
        x = p.inception(f"inception_{name}", x, channels)
        if name in POOLED_AFTER:
            x = p.pool(POOLED_AFTER[name], x, 3, 2)
    p.classifier(x, size // 32, classes)
    return "\n".join(p.lines) + "\n"


if __name__ == "__main__":
    print(googlenet(), end="")
