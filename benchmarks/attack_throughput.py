"""Gradient steps × images per second of PGD: ours, Cleverhans, other libraries, the hardware.

    python -m benchmarks.attack_throughput [--torch_python=PATH] [--only=lenet-200]

All of one model are timed in turns in one process (PyTorch's in one of its own) and the medians
compared. Then the rate of a large matrix product, and the time of one LeNet step by operation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from alp_repro.attacks import PGD, Dtype, Execution, WorkItems, exact_bounds
from alp_repro.attacks.programs import attack_program
from alp_repro.models import build_model
from alp_repro.system import machine
from benchmarks import other_libraries
from benchmarks.timing import Seconds, interleaved, table
from experiments.console import app
from experiments.running import devices

FLAGS = flags.FLAGS
EPS = 0.3
BASE = "Cleverhans, eager"
OPERATIONS = 12
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
    attack = PGD(eps=EPS, eps_iter=EPS / 4, nb_iter=nb_iter, dtype=dtype)
    program = attack_program(
        model,
        attack=attack,
        image_shape=images.shape[1:],
        seed=0,
        execution=Execution(batch_size=len(images)),
    )
    indices = np.arange(len(images))
    zeros = np.zeros(len(images), np.int32)
    items = WorkItems(images, labels, indices, zeros, *exact_bounds(images, EPS))
    return lambda: program(items)


def cleverhans(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, nb_iter: int, compiled: bool
) -> Callable[[], object]:
    """Its own call; compiled, AutoGraph makes its loop over a tensor one `tf.while_loop`."""

    def attack(points: tf.Tensor, truth: tf.Tensor, steps: Any) -> tf.Tensor:
        return projected_gradient_descent(
            lambda x: model(x, training=False),
            points,
            EPS,
            EPS / 4,
            steps,
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=truth,
            sanity_checks=False,
        )

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
        model,
        nb_classes=10,
        input_shape=images.shape[1:],
        clip_values=(0.0, 1.0),
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    attack = ProjectedGradientDescent(
        classifier,
        eps=EPS,
        eps_step=EPS / 4,
        max_iter=nb_iter,
        num_random_init=1,
        batch_size=len(images),
        verbose=False,
    )
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
            k,
            f"{1000 * s.wall:.1f}",
            f"{batch / s.wall:,.0f}",
            f"{base.wall / s.wall:.2f}",
            f"{1000 * s.cpu:.1f}",
            f"{base.cpu / s.cpu:.2f}",
        ]
        for k, s in sorted(per_step.items(), key=lambda item: -item[1].wall)
    ]
    heads = [
        f"{name} ({nb_iter} steps)",
        "ms a step",
        "images × steps / s",
        "× Cleverhans eager",
        "CPU ms a step",
        "× Cleverhans eager",
    ]
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


def by_operation(model_name: str = "lenet", batch: int = 200, nb_iter: int = 100) -> None:
    """TensorFlow's own profile of one step of ours: milliseconds in each kind of operation."""
    shape = next(case[1] for case in CASES.values() if case[0] == model_name)
    model = build_model(model_name, image_shape=shape, num_classes=10)
    random = np.random.default_rng(0)
    images = random.random((batch, *shape), np.float32)
    labels = random.integers(0, 10, batch).astype(np.int32)
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    columns = []
    for dtype in dtypes:
        call = ours(model, images, labels, nb_iter=nb_iter, dtype=dtype)
        call()
        columns.append({k: v / nb_iter for k, v in _profile(call).items()})
    largest = sorted(columns[0] | columns[1], key=lambda k: -columns[1].get(k, 0.0))[:OPERATIONS]
    rows = [[k, *(f"{column.get(k, 0.0):.2f}" for column in columns)] for k in largest]
    rows.append(["all", *(f"{sum(column.values()):.2f}" for column in columns)])
    heads = [f"{model_name}, batch {batch}: operation", "float32, ms a step", "bfloat16, ms a step"]
    print("\n" + table(heads, rows) + "\n", flush=True)


def _profile(call: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of one call in each kind of operation, added over the threads that ran them."""
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder, options):
            call()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    spent: dict[str, float] = {}
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            # Operations are named "node:kind", the executor's own functions "Class::function".
            name = plane.event_metadata[event.metadata_id].name
            node, colon, kind = name.rpartition(":")
            if colon and node and "::" not in name and kind.removeprefix("_").isalnum():
                spent[kind] = spent.get(kind, 0.0) + event.duration_ps / 1e9
    return spent


def main(argv: list[str]) -> None:
    del argv
    print(machine.describe())
    devices.choose()
    for name in CASES:
        if not FLAGS.only or name in FLAGS.only:
            one_case(name)
    if not FLAGS.only or "peak" in FLAGS.only:
        peaks()
    if not FLAGS.only or "operations" in FLAGS.only:
        by_operation()


if __name__ == "__main__":
    devices.define_flags()
    flags.DEFINE_integer("rounds", 5, "Times each call is timed; the median is shown.")
    flags.DEFINE_list("only", [], "Of lenet-200, lenet-1000, resnet20_v2-16, peak, operations.")
    flags.DEFINE_string("torch_python", None, "Interpreter with torch, foolbox, torchattacks.")
    app.run(main)
