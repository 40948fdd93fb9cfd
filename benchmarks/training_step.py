"""A training step of the rows without crafting against a bare Keras `fit` step.

    python -m benchmarks.training_step

Same model, optimizer, batch and data; chunks of steps are timed in turns and the medians compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from alp_repro.models import build_model
from alp_repro.training import Recipe, compiled_model
from benchmarks.timing import interleaved, table
from experiments import app

FLAGS = flags.FLAGS
BASE = "bare Keras fit"
ROWS: dict[str, dict[str, Any]] = {
    "Plain": {},
    "CLP": {"penalties": {"clp": 0.5}, "noise_stddev": 0.5},
    "LSQ": {"penalties": {"lsq": 0.5}, "noise_stddev": 0.5},
}


def bare() -> keras.Model:
    model = build_model("lenet", image_shape=(28, 28, 1), num_classes=10)
    model.compile(
        optimizer=keras.optimizers.Adam(0.001, epsilon=1e-6),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def main(argv: list[str]) -> None:
    del argv
    random = np.random.default_rng(0)
    images = random.random((FLAGS.batch_size, 28, 28, 1), np.float32)
    labels = random.integers(0, 10, FLAGS.batch_size).astype(np.int32)
    data = tf.data.Dataset.from_tensors((images, labels)).repeat()
    models = {BASE: bare()} | {
        name: compiled_model(
            Recipe(
                dataset="mnist", model="lenet", epochs=1, batch_size=FLAGS.batch_size, **settings
            )
        )
        for name, settings in ROWS.items()
    }

    def steps(model: keras.Model) -> Callable[[], object]:
        return lambda: model.fit(data, steps_per_epoch=FLAGS.steps, epochs=1, verbose=0)

    seconds = interleaved({k: steps(m) for k, m in models.items()}, rounds=FLAGS.rounds)
    base = seconds[BASE]
    rows = [
        [
            k,
            f"{1000 * s.wall / FLAGS.steps:.1f}",
            f"{s.wall / base.wall:.2f}",
            f"{1000 * s.cpu / FLAGS.steps:.1f}",
            f"{s.cpu / base.cpu:.2f}",
        ]
        for k, s in seconds.items()
    ]
    heads = [f"LeNet, batch {FLAGS.batch_size}", "ms a step", "ratio", "CPU ms a step", "ratio"]
    print(table(heads, rows))


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 7, "Chunks of each model; the median is shown.")
    flags.DEFINE_integer("steps", 20, "Steps in a chunk.")
    flags.DEFINE_integer("batch_size", 200, "Images in a batch.")
    app.run(main)
