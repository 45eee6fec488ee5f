# SPDX-License-Identifier: Apache-2.0
"""Writes the models of this folder with TensorFlow, from random weights, and what TensorFlow computes with them.

    python tests/importers/tensorflow/data/make_models.py

NAME/ is a SavedModel (NAME.pb a frozen graph), NAME.npz holds its inputs (`in_KEY`) and outputs (`out_KEY`). What only
serves training and debugging is taken out of the files, to keep them small.
"""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

FOLDER = pathlib.Path(__file__).parent
keras, layers, v1 = tf.keras, tf.keras.layers, tf.compat.v1
rng = np.random.default_rng(11)


def random(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def note(name: str, feeds: dict, results: dict) -> None:
    arrays = {f"in_{k}": v for k, v in feeds.items()} | {f"out_{k}": np.asarray(v) for k, v in results.items()}
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


def slim(name: str) -> None:
    """Leave only what an importer may read."""
    folder = FOLDER / name
    for extra in ("assets", "keras_metadata.pb", "fingerprint.pb"):
        if (folder / extra).is_dir():
            shutil.rmtree(folder / extra)
        (folder / extra).unlink(missing_ok=True)
    model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for meta in model.meta_graphs:
        meta.meta_info_def.stripped_op_list.Clear()
        meta.ClearField("object_graph_def")
        for function in meta.graph_def.library.function:
            function.arg_attr.clear()
            slim_nodes(function.node_def)
        slim_nodes(meta.graph_def.node)
        del meta.graph_def.library.gradient[:]
        keep_needed(meta)
    (folder / "saved_model.pb").write_bytes(model.SerializeToString(deterministic=True))


def keep_needed(meta: Any) -> None:
    """Only what signatures and restoring need: neither saving nor Keras's other functions."""
    named = [info.name for s in meta.signature_def.values() for info in (*s.inputs.values(), *s.outputs.values())]
    waiting = [name.partition(":")[0] for name in (*named, meta.saver_def.restore_op_name) if name]
    by_name, nodes, functions = {n.name: n for n in meta.graph_def.node}, {}, {}
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in nodes:
            nodes[name] = by_name[name]
            waiting += [i.removeprefix("^").partition(":")[0] for i in by_name[name].input]
    library = {f.signature.name: f for f in meta.graph_def.library.function}
    calls = list(nodes.values())
    while calls:
        for attr in calls.pop().attr.values():
            for name in (attr.func.name, *(f.name for f in attr.list.func)):
                if name in library and name not in functions:
                    functions[name] = library[name]
                    calls += library[name].node_def
    kept = [list(nodes.values()), list(functions.values())]
    for field, values in zip((meta.graph_def.node, meta.graph_def.library.function), kept, strict=True):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)


def slim_nodes(nodes: Any) -> None:
    for node in nodes:
        node.ClearField("experimental_debug_info")
        for key in [key for key in node.attr if key.startswith("_") or key == "output_shapes"]:
            del node.attr[key]


def save_keras(name: str, model: Any, *feeds: np.ndarray) -> None:
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    model.export(FOLDER / name, verbose=False)
    run = tf.saved_model.load(FOLDER / name).signatures["serving_default"]
    keys = sorted(run.structured_input_signature[1])
    given = dict(zip(keys, feeds, strict=True))
    note(name, given, run(**{k: tf.constant(x) for k, x in given.items()}))
    slim(name)


def image_net() -> Any:
    x = keras.Input((11, 9, 3), name="image")
    y = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.DepthwiseConv2D(3, padding="same")(y)
    y = layers.Conv2D(4, 1, activation="swish")(y)
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, {"scores": layers.Dense(5, activation="softmax")(y), "features": y})


def sequence_net() -> Any:
    x = keras.Input((19,), dtype="int32", name="words")
    y = layers.Embedding(13, 4, mask_zero=True)(x)
    y = layers.Bidirectional(layers.LSTM(3))(y)
    return keras.Model(x, layers.Dense(2)(y))


def open_net() -> Any:
    x = keras.Input((None, 3), name="x")
    return keras.Model(x, layers.GRU(4, return_sequences=True, go_backwards=True)(x))


class Several(tf.Module):
    """Signatures with different inputs; one of them changes a variable on which its result depends."""

    def __init__(self) -> None:
        self.weight = tf.Variable(random(4, 3), name="weight")
        self.count = tf.Variable(0.0, name="count")
        keys = tf.lookup.KeyValueTensorInitializer(["a", "b"], [1, 2])
        self.table = tf.lookup.StaticHashTable(keys, -1)

    @tf.function
    def product(self, x: Any) -> Any:
        return {"product": tf.matmul(x, self.weight)}

    @tf.function
    def looked_up(self, ids: Any) -> Any:
        return {"rows": tf.nn.embedding_lookup(self.weight, ids), "places": tf.shape(self.weight)}

    @tf.function
    def counted(self, x: Any) -> Any:
        self.count.assign_add(1.0)
        return {"times": x * self.count}

    @tf.function
    def watched(self, x: Any) -> Any:
        self.count.assign_add(1.0)
        return {"twice": x * 2.0}

    @tf.function
    def numbered(self, keys: Any) -> Any:
        return {"numbers": self.table.lookup(keys)}


def several() -> None:
    module, name = Several(), "several"
    x, ids = tf.TensorSpec([None, 4], tf.float32, "x"), tf.TensorSpec([3], tf.int32, "ids")
    signatures = {
        "product": module.product.get_concrete_function(x),
        "looked_up": module.looked_up.get_concrete_function(ids),
        "counted": module.counted.get_concrete_function(x),
        "watched": module.watched.get_concrete_function(x),
        "numbered": module.numbered.get_concrete_function(tf.TensorSpec([None], tf.string, "keys")),
    }
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    tf.saved_model.save(module, FOLDER / name, signatures=signatures)
    data = random(2, 4)
    rows = np.array([2, 0, 3], np.int32)
    results = module.product(tf.constant(data)) | module.looked_up(tf.constant(rows))
    note(name, {"x": data, "ids": rows}, results)
    slim(name)


class Flow(tf.Module):
    """Loops and conditions, calls within calls."""

    def __init__(self) -> None:
        self.weight = tf.Variable(random(3, 3) * 0.4, name="weight")

    @tf.function(input_signature=[tf.TensorSpec([3, 3], tf.float32, "x"), tf.TensorSpec([], tf.bool, "flag")])
    def run(self, x: Any, flag: Any) -> Any:
        powers = tf.TensorArray(tf.float32, 20)
        _, last, powers = tf.while_loop(
            lambda i, y, a: i < 20,
            lambda i, y, a: (i + 1, tf.tanh(y @ self.weight + x), a.write(i, y)),
            (tf.constant(0), x, powers),
        )
        halved, steps = tf.while_loop(
            lambda y, n: tf.reduce_sum(tf.abs(y)) > 1.0, lambda y, n: (y / 2.0, n + 1), (x * 9.0, tf.constant(0))
        )
        nested = tf.while_loop(
            lambda i, y: i < 17,
            lambda i, y: (i + 1, tf.while_loop(lambda j, z: j < i, lambda j, z: (j + 1, z * 0.9 + x), (0, y))[1]),
            (tf.constant(0), x),
        )[1]
        chosen = tf.cond(
            flag,
            lambda: tf.cond(tf.reduce_sum(x) > 0.0, lambda: x + 1.0, lambda: x - 1.0),
            lambda: x @ self.weight,
        )
        return {"last": last, "powers": powers.stack(), "halved": halved, "steps": steps, "nested": nested,
                "chosen": chosen}  # fmt: skip


def flow() -> None:
    module, name = Flow(), "flow"
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    tf.saved_model.save(module, FOLDER / name, signatures=module.run)
    feeds = {"x": random(3, 3), "flag": np.bool_(True)}
    note(name, feeds, module.run(tf.constant(feeds["x"]), tf.constant(True)))
    slim(name)
    frozen = convert_variables_to_constants_v2(module.run.get_concrete_function())  # While and If become frames
    graph = frozen.graph.as_graph_def()
    slim_nodes(graph.node)
    (FOLDER / "frames.pb").write_bytes(graph.SerializeToString(deterministic=True))
    results = tf.nest.flatten(frozen(tf.constant(feeds["x"]), tf.constant(True)))
    note("frames", feeds, {t.op.name: value for t, value in zip(frozen.outputs, results, strict=True)})


def old_lstm(x: Any) -> Any:
    """BasicLSTMCell in a loop, its kernel in three parts."""
    kernel = v1.get_variable("rnn/kernel", [7, 16], partitioner=v1.fixed_size_partitioner(3))
    bias = v1.get_variable("rnn/bias", [16], use_resource=True)
    steps, weights = tf.TensorArray(tf.float32, 18).unstack(tf.transpose(x, [1, 0, 2])), tf.convert_to_tensor(kernel)

    def step(t: Any, c: Any, h: Any, out: Any) -> Any:
        i, j, f, o = tf.split(tf.concat([steps.read(t), h], 1) @ weights + bias, 4, 1)
        c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
        h = tf.tanh(c) * tf.sigmoid(o)
        return t + 1, c, h, out.write(t, h)

    zeros, out = tf.zeros([2, 4]), tf.TensorArray(tf.float32, 18)
    return v1.while_loop(lambda t, *_: t < 18, step, [tf.constant(0), zeros, zeros, out])[3].stack()


def old() -> None:
    """A SavedModel of TensorFlow 1."""
    name = "old"
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    with v1.Graph().as_default(), v1.Session() as session:
        v1.disable_control_flow_v2()
        v1.set_random_seed(5)
        x = v1.placeholder(tf.float32, [2, 18, 3], "x")
        flag = v1.placeholder_with_default(False, [], "training")
        scale = v1.get_variable("scale", [4], use_resource=False)
        y = v1.cond(flag, lambda: tf.nn.dropout(old_lstm(x), rate=0.5), lambda: tf.identity(scale)) * scale
        z = old_lstm_output(x)
        session.run(v1.global_variables_initializer())
        feeds = {"x": random(2, 18, 3)}
        results = session.run({"y": y, "hidden": z}, {x: feeds["x"]})
        v1.saved_model.simple_save(session, str(FOLDER / name), {"x": x}, {"y": y, "hidden": z})
    note(name, feeds, results)
    slim(name)


def old_lstm_output(x: Any) -> Any:
    with v1.variable_scope("again", reuse=v1.AUTO_REUSE):
        return old_lstm(x)


if __name__ == "__main__":
    keras.utils.set_random_seed(3)
    save_keras("image_net", image_net(), random(2, 11, 9, 3))
    words = np.concatenate([rng.integers(1, 13, (2, 12)), np.zeros((2, 7))], 1).astype(np.int32)
    save_keras("sequence_net", sequence_net(), words)
    save_keras("open_net", open_net(), random(3, 7, 3))
    several()
    flow()
    old()
