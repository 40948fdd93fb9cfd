"""The exhaustive restart loop against ours, to the same number.

    python -m benchmarks.restart_loop --run_dirs=runs/quick/mnist/clp,runs/quick/mnist/lsq

The exhaustive loop runs every restart on every image, in float32, as the paper's code did; ours
leaves out images that are broken and crafts in --attack_dtype. With --exhaustive_dtype the same as
that, both run the same compiled program and the first breaking restarts must agree: what is left
of the ratio is what leaving out saves.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import keras
import numpy as np
from absl import flags

from alp_repro import runs
from alp_repro.attacks import (
    PGD,
    Attack,
    Execution,
    WorkItems,
    exact_bounds,
    resolve_dtype,
)
from alp_repro.attacks.programs import AttackProgram, attack_program
from alp_repro.data import load
from alp_repro.evaluation import restarts
from alp_repro.evaluation.record import new_record
from benchmarks.timing import table
from experiments.console import app

FLAGS = flags.FLAGS


def exhaustive(
    program: AttackProgram, images: np.ndarray, labels: np.ndarray, attack: Attack, batch: int
) -> np.ndarray:
    """First breaking restart of each image, -1: none. Batches must divide the images."""
    lower, upper = exact_bounds(images, attack.eps)
    first = np.full(len(images), -1)
    for restart in range(attack.restarts):
        for start in range(0, len(images), batch):
            index = np.arange(start, start + batch)
            same_restart = np.full(batch, restart, np.int32)
            outcome = program(
                WorkItems(
                    images[index], labels[index], index, same_restart, lower[index], upper[index]
                )
            )
            new = index[outcome.broken & (first[index] < 0)]
            first[new] = restart
    return first


def compare(name: str, model: keras.Model, data: load.Images, attack: Attack) -> list[str]:
    """One line of the table."""
    images = data.unit_scale
    batch = FLAGS.batch_size
    execution = Execution(batch_size=batch)
    program = attack_program(
        model,
        attack=dataclasses.replace(attack, dtype=resolve_dtype(FLAGS.exhaustive_dtype)),
        image_shape=images.shape[1:],
        seed=0,
        execution=execution,
    )
    bounds = exact_bounds(images[:batch], attack.eps)
    index = np.arange(batch)
    warm_up = WorkItems(images[:batch], data.labels[:batch], index, index.astype(np.int32), *bounds)
    program(warm_up)
    started = time.perf_counter()
    theirs = exhaustive(program, images, data.labels, attack, batch)
    exhaustive_seconds = time.perf_counter() - started
    record = new_record(
        labels=data.labels, indices=data.indices, clean_predictions=data.labels, settings={}
    )
    # Of another dtype, ours traces its own program: that time, which the other was spared, counts.
    started = time.perf_counter()
    record = restarts.attack_with_restarts(
        model, images, record, attack=attack, seed=0, execution=execution
    )
    our_seconds = time.perf_counter() - started
    different = int(np.sum(record.first_break != theirs))
    share = float(np.mean(record.restarts_spent(attack.restarts))) / attack.restarts
    standing = [float(np.mean(theirs < 0)), record.accuracy_at(attack.restarts)]
    seconds = [exhaustive_seconds, our_seconds]
    return [
        name,
        *(f"{100 * value:.1f}%" for value in standing),
        str(different),
        f"{100 * share:.1f}%",
        *(f"{value:.1f}" for value in seconds),
        f"{exhaustive_seconds / our_seconds:.1f}",
    ]


def main(argv: list[str]) -> None:
    del argv
    data = load.load_evaluation_set("mnist", num_images=FLAGS.num_images, data_dir=FLAGS.data_dir)
    attack = PGD(
        eps=0.3,
        eps_iter=50 / 255,
        nb_iter=FLAGS.nb_iter,
        restarts=FLAGS.restarts,
        dtype=resolve_dtype(FLAGS.attack_dtype),
    )
    rows = []
    for run_dir in FLAGS.run_dirs:
        model = runs.load_model(runs.RunDir(Path(run_dir)).model)
        rows.append(compare(Path(run_dir).name, model, data, attack))
        print(" ".join(rows[-1]), flush=True)
    heads = [
        f"{FLAGS.num_images} images, {FLAGS.restarts} restarts",
        f"exhaustive, {resolve_dtype(FLAGS.exhaustive_dtype)}",
        f"ours, {attack.dtype}",
        "images that differ",
        "restarts run",
        "exhaustive, s",
        "ours, s",
        "ratio",
    ]
    print("\n" + table(heads, rows))


if __name__ == "__main__":
    flags.DEFINE_list("run_dirs", [], "Folders of trained MNIST models (with model.keras).")
    flags.DEFINE_integer("num_images", 100, "Of the evaluation set; a multiple of the batch.")
    flags.DEFINE_integer("restarts", 100, "Of the paper's strong attack.")
    flags.DEFINE_integer("nb_iter", 200, "Steps of a restart.")
    flags.DEFINE_integer("batch_size", 100, "Work items in a batch, for both loops.")
    flags.DEFINE_string("data_dir", None, "TFDS folder.")
    dtypes = ["auto", "float32", "bfloat16"]
    flags.DEFINE_enum("attack_dtype", "auto", dtypes, "Of our crafting.")
    flags.DEFINE_enum("exhaustive_dtype", "float32", dtypes, "Of the exhaustive loop's crafting.")
    app.run(main)
