"""Training steps of Table 1's rows, in float32 and bfloat16, against a bare Keras `fit` step.

    python -m benchmarks.training_step

Same model, batch and data; chunks of steps are timed in turns and the medians compared. The
training attack crafts in the dtype of the passes, but in bfloat16 where "crafting" names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from alp_repro.attacks import PGD, Dtype
from alp_repro.models import build_model
from alp_repro.system import machine
from alp_repro.training import Recipe, compiled_model
from benchmarks.timing import Seconds, interleaved, table
from experiments.console import app
from experiments.running import devices

FLAGS = flags.FLAGS
BASE = "bare Keras fit, float32"
EPS = 0.3
ROWS: dict[str, dict[str, Any]] = {
    "Plain": {},
    "CLP": {"penalties": {"clp": 0.5}, "noise_stddev": 0.5},
    "LSQ": {"penalties": {"lsq": 0.5}, "noise_stddev": 0.5},
    "Plain + ALP": {"penalties": {"alp": 1.0}},
    "50% AT": {"clean_weight": 0.5, "adversarial_weight": 0.5},
    "100% AT": {"clean_weight": 0.0, "adversarial_weight": 1.0},
}
ADVERSARIAL = ("Plain + ALP", "50% AT", "100% AT")
# Dtype of the passes and of the crafting.
DTYPES: tuple[tuple[Dtype, Dtype], ...] = (
    ("float32", "float32"),
    ("float32", "bfloat16"),
    ("bfloat16", "bfloat16"),
)


def bare() -> keras.Model:
    model = build_model("lenet", image_shape=(28, 28, 1), num_classes=10)
    model.compile(
        optimizer=keras.optimizers.Adam(0.001, epsilon=1e-6),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def ours(row: str, *, dtype: Dtype, crafting: Dtype) -> keras.Model:
    """The model of a row; its training attack has --nb_iter steps."""
    settings = dict(ROWS[row])
    if row in ADVERSARIAL:
        steps = FLAGS.nb_iter
        settings["attack"] = PGD(eps=EPS, eps_iter=2.5 * EPS / steps, nb_iter=steps, dtype=crafting)
    recipe = Recipe(
        dataset="mnist",
        model="lenet",
        epochs=1,
        batch_size=FLAGS.batch_size,
        dtype=dtype,
        **settings,
    )
    return compiled_model(recipe)


def candidates() -> dict[str, keras.Model]:
    """Every row in every pair of dtypes that differs for it, by its name in the table."""
    found = {BASE: bare()}
    for row in FLAGS.only or ROWS:
        for dtype, crafting in DTYPES:
            if row in ADVERSARIAL:
                name = f"{row}, {dtype}" + (", crafting bfloat16" if crafting != dtype else "")
            elif dtype == crafting:
                name = f"{row}, {dtype}"
            else:
                continue
            found[name] = ours(row, dtype=dtype, crafting=crafting)
    return found


def main(argv: list[str]) -> None:
    del argv
    print(machine.describe())
    devices.choose()
    random = np.random.default_rng(0)
    images = random.random((FLAGS.batch_size, 28, 28, 1), np.float32)
    labels = random.integers(0, 10, FLAGS.batch_size).astype(np.int32)
    data = tf.data.Dataset.from_tensors((images, labels)).repeat()

    def steps(model: keras.Model) -> Callable[[], object]:
        return lambda: model.fit(data, steps_per_epoch=FLAGS.steps, epochs=1, verbose=0)

    seconds = interleaved({k: steps(m) for k, m in candidates().items()}, rounds=FLAGS.rounds)
    heads = [
        f"LeNet, batch {FLAGS.batch_size}",
        "images/s",
        "ms a step",
        "× bare fit",
        "× own float32",
        "CPU ms a step",
        "× own float32",
    ]
    print(table(heads, [line(name, seconds) for name in seconds]))


def line(name: str, seconds: dict[str, Seconds]) -> list[str]:
    """One row of the table; "× own float32" compares with the same row all in float32."""
    mine = seconds[name]
    own = seconds[name if name == BASE else f"{name.split(', ')[0]}, float32"]
    return [
        name,
        f"{FLAGS.batch_size * FLAGS.steps / mine.wall:,.0f}",
        f"{1000 * mine.wall / FLAGS.steps:.1f}",
        f"{seconds[BASE].wall / mine.wall:.2f}",
        f"{own.wall / mine.wall:.2f}",
        f"{1000 * mine.cpu / FLAGS.steps:.1f}",
        f"{own.cpu / mine.cpu:.2f}",
    ]


if __name__ == "__main__":
    devices.define_flags()
    flags.DEFINE_integer("rounds", 5, "Chunks of each model; the median is shown.")
    flags.DEFINE_integer("steps", 20, "Steps in a chunk.")
    flags.DEFINE_integer("batch_size", 200, "Images in a batch.")
    flags.DEFINE_integer("nb_iter", 5, "Steps of the training attack.")
    flags.DEFINE_list("only", [], f"Of {', '.join(ROWS)}. Default: all.")
    app.run(main)
