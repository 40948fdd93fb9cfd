"""Gradient steps × images per second of PGD: ours, Cleverhans, other libraries, the hardware.

    python -m benchmarks.attack_throughput [--torch_python=PATH] [--only=lenet-200]

All of one model are timed in turns in one process (PyTorch's in one of its own) and the medians
compared. Then the time of one LeNet step by layer, and the rate of a large matrix product.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

from alp_repro.attack_programs import attack_program
from alp_repro.attacks import Attack, Dtype, crafting_copy
from alp_repro.models import build_model
from alp_repro.restarts import exact_bounds
from benchmarks import other_libraries
from benchmarks.timing import Seconds, interleaved, table
from experiments import app

FLAGS = flags.FLAGS
EPS = 0.3
BASE = "Cleverhans, eager"
LAYER_REPEATS = 5
# Name: model, image shape, batch, steps of a timed call.
CASES: dict[str, tuple[str, tuple[int, int, int], int, int]] = {
    "lenet-200": ("lenet", (28, 28, 1), 200, 20),
    "lenet-1000": ("lenet", (28, 28, 1), 1000, 5),
    "resnet20_v2-16": ("resnet20_v2", (32, 32, 3), 16, 3),
}


def ours(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, nb_iter: int, dtype: Dtype
) -> Callable[[], object]:
    """The engine's batch program: starts, steps, and the verdict in float32."""
    attack = Attack(eps=EPS, eps_iter=EPS / 4, nb_iter=nb_iter, dtype=dtype)
    program = attack_program(
        model, attack=attack, image_shape=images.shape[1:], batch_size=len(images), seed=0
    )
    indices = np.arange(len(images))
    zeros = np.zeros(len(images), np.int32)
    bounds = exact_bounds(images, EPS)
    return lambda: program(images, labels, indices, zeros, *bounds)


def cleverhans(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, nb_iter: int, compiled: bool
) -> Callable[[], object]:
    """Its own call; compiled, AutoGraph makes its loop over a tensor one `tf.while_loop`."""

    def attack(points: tf.Tensor, truth: tf.Tensor, steps: Any) -> tf.Tensor:
        return projected_gradient_descent(
            lambda x: model(x, training=False), points, EPS, EPS / 4, steps, np.inf,
            clip_min=0.0, clip_max=1.0, y=truth, sanity_checks=False,
        )  # fmt: skip

    points, truth = tf.constant(images), tf.constant(labels)
    if not compiled:
        return lambda: attack(points, truth, nb_iter).numpy()
    function, steps = tf.function(attack), tf.constant(nb_iter)
    return lambda: function(points, truth, steps).numpy()


def art(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, nb_iter: int
) -> Callable[[], object] | None:
    """The Adversarial Robustness Toolbox on TensorFlow; None, with a line, where it is absent."""
    try:
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import TensorFlowV2Classifier
    except ImportError as error:
        print(f"ART left out: {error}", flush=True)
        return None
    classifier = TensorFlowV2Classifier(
        model, nb_classes=10, input_shape=images.shape[1:], clip_values=(0.0, 1.0),
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )  # fmt: skip
    attack = ProjectedGradientDescent(
        classifier, eps=EPS, eps_step=EPS / 4, max_iter=nb_iter, num_random_init=1,
        batch_size=len(images), verbose=False,
    )  # fmt: skip
    return lambda: attack.generate(images, labels)


def one_case(name: str) -> None:
    """Times every library on one model and prints a table."""
    model_name, shape, batch, nb_iter = CASES[name]
    model = build_model(model_name, image_shape=shape, num_classes=10)
    random = np.random.default_rng(0)
    images = random.random((batch, *shape), np.float32)
    labels = random.integers(0, 10, batch).astype(np.int32)
    calls = {
        BASE: cleverhans(model, images, labels, nb_iter=nb_iter, compiled=False),
        "Cleverhans in tf.function": cleverhans(
            model, images, labels, nb_iter=nb_iter, compiled=True
        ),
        "ours, float32": ours(model, images, labels, nb_iter=nb_iter, dtype="float32"),
        "ours, bfloat16": ours(model, images, labels, nb_iter=nb_iter, dtype="bfloat16"),
    }
    toolbox = art(model, images, labels, nb_iter=nb_iter)
    if toolbox is not None:
        calls["ART (TensorFlow)"] = toolbox
    per_step = {
        k: Seconds(s.wall / nb_iter, s.cpu / nb_iter)
        for k, s in interleaved(calls, rounds=FLAGS.rounds).items()
    }
    if model_name == "lenet":
        answer = other_libraries.run_torch(
            "throughput", model, images, labels, eps=EPS, python=FLAGS.torch_python
        )
        if answer is not None:
            per_step |= {k: Seconds(*s) for k, s in answer["seconds_per_step"].items()}
            for line in answer["skipped"]:
                print(f"left out: {line}", flush=True)
    base = per_step[BASE]
    rows = [
        [
            k, f"{1000 * s.wall:.1f}", f"{batch / s.wall:,.0f}", f"{base.wall / s.wall:.2f}",
            f"{1000 * s.cpu:.1f}", f"{base.cpu / s.cpu:.2f}",
        ]
        for k, s in sorted(per_step.items(), key=lambda item: -item[1].wall)
    ]  # fmt: skip
    heads = [
        f"{name} ({nb_iter} steps)", "ms a step", "images × steps / s", "× Cleverhans eager",
        "CPU ms a step", "× Cleverhans eager",
    ]  # fmt: skip
    print("\n" + table(heads, rows) + "\n", flush=True)


def peaks() -> None:
    """GFLOP/s of a 2048³ matrix product."""
    size, repeats = 2048, 4
    calls = {}
    for dtype in ("float32", "bfloat16"):
        matrix = tf.cast(tf.random.stateless_uniform([size, size], [1, 2]) / size, dtype)

        @tf.function
        def product(x: tf.Tensor, y: tf.Tensor = matrix) -> tf.Tensor:
            for _ in range(repeats):
                x = x @ y
            return x

        calls[dtype] = lambda product=product, matrix=matrix: tf.reduce_sum(product(matrix)).numpy()
    seconds = interleaved(calls, rounds=FLAGS.rounds)
    work = repeats * 2 * size**3 / 1e9
    rows = [[k, f"{work / s.wall:.0f}", f"{work / s.cpu:.0f}"] for k, s in seconds.items()]
    heads = ["matrix product 2048³", "GFLOP/s", "GFLOP/s of one core"]
    print("\n" + table(heads, rows) + "\n", flush=True)


def _repeated(function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> np.ndarray:
    return [function(x) for _ in range(LAYER_REPEATS)][-1].numpy()


def by_layer(batch: int = 200) -> None:
    """Each layer of the LeNet alone: its pass forward, and forward with the gradient of its input.

    In processor time of all cores; inputs are random.
    """
    calls: dict[str, Callable[[], object]] = {}
    flops: dict[str, float] = {}
    model = build_model("lenet", image_shape=(28, 28, 1), num_classes=10)
    for dtype in ("float32", "bfloat16"):
        copy = crafting_copy(model, dtype) if dtype != "float32" else model
        for layer in copy.layers[1:]:
            x = tf.random.stateless_normal([batch, *layer.input.shape[1:]], [3, 4])
            x = tf.cast(x, dtype)
            forward = tf.function(lambda x, layer=layer: layer(x))

            def both(x: tf.Tensor, layer: keras.Layer = layer) -> tf.Tensor:
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(x)
                    outputs = layer(x)
                return tape.gradient(outputs, x)

            gradient = tf.function(both)
            key = f"{layer.name} {dtype}"
            calls[f"{key} forward"] = functools.partial(_repeated, forward, x)
            calls[f"{key} both"] = functools.partial(_repeated, gradient, x)
            if layer.weights:
                kernel = layer.weights[0].shape
                places = np.prod(layer.output.shape[1:-1]) if len(kernel) == 4 else 1
                flops[layer.name] = 2e-6 * float(np.prod(kernel)) * float(places)
    seconds = interleaved(calls, rounds=FLAGS.rounds)
    milliseconds = 1000 / LAYER_REPEATS
    rows = []
    for layer in model.layers[1:]:
        cells = [f"{flops.get(layer.name, 0):.2f}"]
        for dtype in ("float32", "bfloat16"):
            forward_ms = milliseconds * seconds[f"{layer.name} {dtype} forward"].cpu
            both_ms = milliseconds * seconds[f"{layer.name} {dtype} both"].cpu
            cells += [f"{forward_ms:.1f}", f"{both_ms:.1f}"]
        rows.append([layer.name, *cells])
    heads = [
        f"LeNet layer, batch {batch}", "MFLOP an image, forward", "float32 forward, CPU ms",
        "with gradient", "bfloat16 forward, CPU ms", "with gradient",
    ]  # fmt: skip
    print("\n" + table(heads, rows) + "\n", flush=True)


def main(argv: list[str]) -> None:
    del argv
    for name in CASES:
        if not FLAGS.only or name in FLAGS.only:
            one_case(name)
    if not FLAGS.only or "peak" in FLAGS.only:
        peaks()
    if not FLAGS.only or "layers" in FLAGS.only:
        by_layer()


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 5, "Times each call is timed; the median is shown.")
    flags.DEFINE_list("only", [], "Of lenet-200, lenet-1000, resnet20_v2-16, peak, layers.")
    flags.DEFINE_string("torch_python", None, "Interpreter with torch, foolbox, torchattacks.")
    app.run(main)
