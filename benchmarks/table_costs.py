"""What the paper's tables cost at each scale: images, gradients, and core or GPU hours.

    python -m benchmarks.table_costs                 # counts, and hours at the rates of one core
    python -m benchmarks.table_costs --norates       # counts alone

Images and gradients are counted from the flagfiles. Two rates are measured for each data set, on
made-up images: images/s of a training step without attack, and gradients/s of PGD at the batch size
of an evaluation, float32; on the GPU where there is one, else on one core, as a task of a cluster
has it. Hours are their quotients, so they are computed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time

import numpy as np
import tensorflow as tf
from absl import flags

from alp_repro import training
from alp_repro.data import Images, dataset_spec
from alp_repro.models import build_model
from alp_repro.reporting import tables
from alp_repro.system import machine
from benchmarks.attack_throughput import ours
from benchmarks.timing import table
from experiments.console import app
from experiments.flags import settings
from experiments.running import devices, rows
from experiments.running.estimates import attacks_of, steps_of
from experiments.running.evaluation_run import image_count

FLAGS = flags.FLAGS
WORKERS = (1, 8, 64)
# Tables 4 and 5 have the same models and attacks.
TABLES = {"1": 1, "2": 2, "3": 3, "4, 5": 4}


@dataclasses.dataclass(frozen=True)
class Count:
    """The work of a table, if no image breaks; `longest` is the most work of one training."""

    rows: int
    images: float
    training_gradients: float
    attack_gradients: float
    longest: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Rates:
    """Images of a training without attack and gradients of an attack, a second."""

    images: float
    gradients: float

    def hours(self, images: float, gradients: float) -> float:
        """Of one core, or of a GPU."""
        return (images / self.images + gradients / self.gradients) / 3600


def counted(number: int, scale: str) -> Count:
    """The work of a table at a scale."""
    values = flags.FlagValues()
    settings.define_table_flags(values)
    values(["table", f"--table={number}", f"--scale={scale}"])
    settings.fill_in_table(values)
    trained, attacks = [], 0.0
    for row in values.rows:
        job = rows.make_job(values, row)
        recipe = settings.recipe(job.values)
        count = recipe.train_images or dataset_spec(recipe.dataset).train_size
        images = min(recipe.epochs * count, steps_of(recipe, count) * recipe.batch_size)
        trained.append((images, images * _steps_of(recipe)))
        each = sum(attack.gradients for attack in attacks_of(job.columns))
        attacks += image_count(job.values) * each
    images, gradients = map(sum, zip(*trained, strict=True))
    return Count(len(values.rows), images, gradients, attacks, max(trained, key=sum))


@functools.cache
def measured(number: int) -> Rates:
    """The rates of a table's model at the paper's width."""
    values = flags.FlagValues()
    settings.define_table_flags(values)
    values(["table", f"--table={number}", "--scale=paper"])
    settings.fill_in_table(values)
    job = rows.make_job(values, "plain" if "plain" in values.rows else values.rows[0])
    spec = dataset_spec(values.dataset)
    random = np.random.default_rng(0)
    batch = spec.eval_batch_size
    images = random.integers(0, 256, (max(batch, 256), *spec.image_shape), np.uint8)
    labels = random.integers(0, 10, len(images)).astype(np.int32)
    recipe = dataclasses.replace(
        settings.recipe(job.values),
        epochs=1,
        max_steps=None,
        attack_warmup_steps=0,
        attack_warmup_nb_iter=None,
    )
    recipe = dataclasses.replace(recipe, train_images=recipe.batch_size)
    gpu = bool(tf.config.list_physical_devices("GPU"))
    data = Images(images, labels, np.arange(len(images)), "made up")
    step = training.estimate_seconds(recipe, data, jit_compile=gpu)
    model = build_model(recipe.model, image_shape=spec.image_shape, num_classes=spec.num_classes)
    pixels = data.unit_scale[:batch]
    attack = ours(model, pixels, labels[:batch], nb_iter=FLAGS.steps, dtype="float32")
    attack()
    times = []
    for _ in range(FLAGS.rounds):
        started = time.monotonic()
        attack()
        times.append(time.monotonic() - started)
    return Rates(recipe.batch_size / step, batch * FLAGS.steps / float(np.median(times)))


def main(_: list[str]) -> None:
    """Prints counts, rates and hours."""
    devices.choose(threads=1)
    counts = {
        (label, scale): counted(number, scale)
        for label, number in TABLES.items()
        for scale in _scales(number)
    }
    heads = ["table", "scale", "rows", "images trained on", "gradients in training"]
    heads += ["gradients of the attacks, at most"]
    lines = []
    for (label, scale), count in counts.items():
        work = (count.images, count.training_gradients, count.attack_gradients)
        lines.append([label, scale, str(count.rows), *map(_short, work)])
    print(table(heads, lines))
    if FLAGS.rates:
        print(f"\n{machine.describe()}; hours of one core, or of the GPU, computed:\n")
        tell_hours(counts)


def tell_hours(counts: dict[tuple[str, str], Count]) -> None:
    """Prints the rates and what follows from them."""
    for label, number in {"1": 1, "2": 2, "3-5": 3}.items():
        rates = measured(number)
        print(f"table {label}: {rates.images:,.1f} images/s, {rates.gradients:,.1f} gradients/s")
    heads = ["table", "scale", "training", "attacks, at most", "together"]
    heads += [f"on {workers}" for workers in WORKERS[1:]]
    lines = []
    for (label, scale), count in counts.items():
        rates = measured(min(TABLES[label], 3))
        trains = rates.hours(count.images, count.training_gradients)
        attacks = rates.hours(0, count.attack_gradients)
        longest = rates.hours(*count.longest)
        # Trainings divide by rows, attacks by batches.
        shared = [max((trains + attacks) / workers, longest) for workers in WORKERS[1:]]
        hours = map(_hours, (trains, attacks, trains + attacks, *shared))
        lines.append([label, scale, *hours])
    print()
    print(table(heads, lines))


def _steps_of(recipe: training.Recipe) -> int:
    """Gradients that an image of a training gets."""
    return recipe.attack.gradients if recipe.attack and recipe.uses_adversarial else 0


def _scales(number: int) -> list[str]:
    dataset = tables.load_paper_table(number).dataset
    return [
        s for s in settings.scales_of(settings.default_flags_dir(), dataset) if s in FLAGS.scales
    ]


def _short(number: float) -> str:
    return f"{number:.1e}".replace("e+0", "e").replace("e+", "e")


def _hours(hours: float) -> str:
    if hours < 100:
        return f"{hours:.2g}"
    return f"{round(hours, 2 - math.ceil(math.log10(hours))):,.0f}"


if __name__ == "__main__":
    devices.define_flags()
    flags.DEFINE_list("scales", list(settings.SCALES), "Scales to count.")
    flags.DEFINE_boolean("rates", True, "Measure rates and compute hours.")
    flags.DEFINE_integer("steps", 5, "Steps of a timed attack.")
    flags.DEFINE_integer("rounds", 3, "Timed attacks, the median of which counts.")
    app.run(main)
