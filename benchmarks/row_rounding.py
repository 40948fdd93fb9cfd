"""At which batch sizes the place of a row in its batch changes the row's last bits.

    ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.row_rounding --threads=1

Each batch passes an operation twice, the second time with its rows in another order; the table
counts the rows whose bits differ. 0 everywhere: the operation is exact on this processor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import flags

from alp_repro.system import machine
from benchmarks.timing import table
from experiments.console import app
from experiments.running import devices

flags.DEFINE_list(
    "batch_sizes",
    list(map(str, (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 40, 50, 64, 96, 100, 192, 200))),
    "Batch sizes to try.",
)
FLAGS = flags.FLAGS
_ORDERS = 3

Operation = Callable[[tf.Tensor], tf.Tensor]


def operations(random: np.random.Generator) -> dict[str, tuple[Operation, tuple[int, ...]]]:
    """Return the operations by name, each with the shape of a row."""

    def weights(*shape: int) -> tf.Tensor:
        return tf.constant(random.standard_normal(shape), tf.float32)

    found: dict[str, tuple[Operation, tuple[int, ...]]] = {
        "exp": (tf.exp, (13,)),
        "tanh": (tf.tanh, (13,)),
        "sum": (lambda x: tf.reduce_sum(x, axis=1), (784,)),
    }
    for rows, columns in ((784, 10), (3136, 1024), (1024, 10)):
        matrix = weights(rows, columns)
        product = functools.partial(_product, weights=matrix)
        found[f"product {rows} × {columns}"] = product, (rows,)
        found[f"its gradient {rows} × {columns}"] = _gradient(product, columns, random), (rows,)
    for size, inputs, outputs in ((28, 1, 32), (14, 32, 64)):
        kernel = weights(3, 3, inputs, outputs)
        convolution = functools.partial(_convolution, weights=kernel)
        name = f"{size} × {size}, {inputs} to {outputs}"
        shape = (size, size, inputs)
        found[f"convolution {name}"] = convolution, shape
        found[f"its gradient {name}"] = _gradient(convolution, outputs, random), shape
    return found


def _product(rows: tf.Tensor, *, weights: tf.Tensor) -> tf.Tensor:
    return rows @ weights


def _convolution(images: tf.Tensor, *, weights: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(images, weights, 1, "SAME")


def _gradient(function: Operation, channels: int, random: np.random.Generator) -> Operation:
    """Return the gradient of a weighted sum of the outputs with respect to the input."""
    weights = tf.constant(random.standard_normal(channels), tf.float32)

    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(function(x) * weights)
        return tape.gradient(total, x)

    return gradient


def rows_that_differ(
    operation: Operation, shape: tuple[int, ...], size: int, random: np.random.Generator
) -> int:
    """Return how many of a batch's rows change with their places."""
    batch = random.standard_normal((size, *shape)).astype(np.float32)
    compiled = tf.function(operation)
    first = compiled(tf.constant(batch)).numpy().reshape(size, -1)
    differing = 0
    for _ in range(_ORDERS):
        order = random.permutation(size)
        again = compiled(tf.constant(batch[order])).numpy().reshape(size, -1)
        differing = max(differing, int((again != first[order]).any(axis=1).sum()))
    return differing


def main(argv: list[str]) -> None:
    del argv
    print(machine.describe())
    devices.choose()
    random = np.random.default_rng(0)
    sizes = [int(size) for size in FLAGS.batch_sizes]
    lines = [
        [name, *(str(rows_that_differ(operation, shape, size, random)) for size in sizes)]
        for name, (operation, shape) in operations(random).items()
    ]
    print(table(["operation", *map(str, sizes)], lines))


if __name__ == "__main__":
    devices.define_flags()
    app.run(main)
