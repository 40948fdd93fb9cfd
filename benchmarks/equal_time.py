"""How many steps of each follow-up row take the same CPU time: what scale followups has.

    python -m benchmarks.equal_time --seconds=180
    python -m benchmarks.equal_time --table=followups_cifar10 --seconds=600 --steps=4

Chunks of steps of all kinds are timed in turns, in seconds of the processor and on one thread, and
the medians compared, so that a busy machine slows all of them alike. Rows whose steps have the same
passes are of one kind. The first steps of a training
attack that grows may have fewer iterations: they are timed by themselves.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from alp_repro.attacks import PGD
from alp_repro.data import dataset_spec
from alp_repro.reporting.table_names import FOLLOWUPS, OURS
from alp_repro.system import machine
from alp_repro.training import Recipe, compiled_model
from benchmarks.timing import interleaved, table
from experiments.console import app
from experiments.flags import settings
from experiments.running import devices

FLAGS = flags.FLAGS
OWN_SCHEDULE = ("fast_at_wong",)


def recipes() -> dict[str, Recipe]:
    """Return the rows of the table that get the same time, by their names."""
    values = flags.FlagValues()
    settings.define_table_flags(values)
    values(["table", f"--table={FLAGS.table}", f"--scale={FOLLOWUPS}"])
    settings.fill_in_table(values)
    return {
        row: settings.recipe(
            settings.row_flags(
                dataset=values.dataset, row=row, scale=FOLLOWUPS, flags_dir=values.flags_dir
            )
        )
        for row in FLAGS.only or values.rows
        if row not in OWN_SCHEDULE
    }


def parts(recipe: Recipe) -> dict[str, tuple[Recipe, int | None]]:
    """Return recipes whose steps all cost the same, with their number; None: all further steps."""
    attack, few = recipe.attack, recipe.attack_warmup_nb_iter
    plain = dataclasses.replace(recipe, attack_warmup_nb_iter=None, max_steps=None)
    if few is None or not isinstance(attack, PGD) or few == attack.nb_iter:
        return {"whole": (plain, None)}
    short = dataclasses.replace(plain, attack=dataclasses.replace(attack, nb_iter=few))
    return {"warm-up": (short, recipe.attack_warmup_steps), "whole": (plain, None)}


def kind(recipe: Recipe) -> Hashable:
    """Return what the time of a step depends on: the passes, not what is made of their logits."""
    nb_iter = recipe.attack.nb_iter if isinstance(recipe.attack, PGD) else None
    passes = (recipe.uses_clean, recipe.uses_adversarial, recipe.crafting == "trades", nb_iter)
    apart = tuple(recipe.penalties) if recipe.separate_passes else None
    return (recipe.model, recipe.batch_size, recipe.dtype, *passes, apart)


def steps_of(recipe: Recipe) -> Callable[[], Any]:
    """Return a function that takes --steps steps on made-up images."""
    spec, random = dataset_spec(recipe.dataset), np.random.default_rng(0)
    images = random.random((recipe.batch_size, *spec.image_shape), np.float32)
    labels = random.integers(0, spec.num_classes, recipe.batch_size).astype(np.int32)
    data = tf.data.Dataset.from_tensors((images, labels)).repeat()
    model: keras.Model = compiled_model(recipe)
    return lambda: model.fit(data, steps_per_epoch=FLAGS.steps, epochs=1, verbose=0)


def main(_: list[str]) -> None:
    """Print milliseconds a step, and the steps that fill --seconds."""
    print(machine.describe())
    devices.choose(threads=1)
    found = recipes()
    timed = {kind(part): part for one in found.values() for part, _ in parts(one).values()}
    seconds = interleaved(
        {str(key): steps_of(part) for key, part in timed.items()}, rounds=FLAGS.rounds
    )
    per_step = {key: seconds[str(key)].cpu / FLAGS.steps for key in timed}
    lines = []
    for row, recipe in found.items():
        left, steps, texts = FLAGS.seconds, 0, []
        for part, count in parts(recipe).values():
            each = per_step[kind(part)]
            taken = math.floor(left / each) if count is None else count
            left, steps = left - taken * each, steps + taken
            texts.append(f"{1000 * each:.1f}")
        images = recipe.train_images or dataset_spec(recipe.dataset).train_size
        epoch = math.ceil(images / recipe.batch_size)
        lines.append(
            [row, str(recipe.batch_size), ", ".join(texts), str(steps), f"{steps / epoch:.2f}"]
        )
    heads = ["row", "batch", "CPU ms a step (warm-up, whole)", "steps", "epochs"]
    print(table(heads, lines))


if __name__ == "__main__":
    devices.define_flags()
    flags.DEFINE_enum("table", FOLLOWUPS, OURS, "Which table.")
    flags.DEFINE_float("seconds", 180.0, "CPU seconds of each training.")
    flags.DEFINE_integer("rounds", 3, "Chunks of each kind; the median is shown.")
    flags.DEFINE_integer("steps", 15, "Steps in a chunk.")
    flags.DEFINE_list("only", [], "Rows. Default: all of the table.")
    app.run(main)
