"""Crafting in bfloat16 against float32: the same images, restarts and starts, verdicts in float32.

    python -m benchmarks.attack_dtypes --run_dirs=runs/quick/mnist/clp,runs/quick/mnist/lsq

An image that one dtype breaks and the other does not is no error in itself (another seed would
break other images too), so the last column is float32 against float32 with another seed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from absl import flags

from alp_repro import evaluation, runs
from alp_repro.attacks import PGD, Attack, Ensemble, strong_attack
from alp_repro.data import load
from benchmarks.timing import table
from experiments.console import app

FLAGS = flags.FLAGS
ATTACKS: dict[str, Attack | Ensemble] = {
    "step 2.55, n 40": PGD(eps=0.3, eps_iter=2.55 / 255, nb_iter=40, restarts=1),
    "step 50, n 200, r 1": PGD(eps=0.3, eps_iter=50 / 255, nb_iter=200, restarts=1),
    "step 50, n 200, r 3": PGD(eps=0.3, eps_iter=50 / 255, nb_iter=200, restarts=3),
    "strong, r 1": dataclasses.replace(strong_attack(0.3), restarts=1),
}


def in_bfloat16(attack: Attack | Ensemble) -> Attack | Ensemble:
    """Return the same, crafted in bfloat16."""
    if isinstance(attack, Ensemble):
        return attack.with_dtype("bfloat16")
    return dataclasses.replace(attack, dtype="bfloat16")


def main(argv: list[str]) -> None:
    del argv
    data = load.load_evaluation_set("mnist", num_images=FLAGS.num_images, data_dir=FLAGS.data_dir)
    images = data.unit_scale
    rows = []
    for run_dir in FLAGS.run_dirs:
        model = runs.load_model(runs.RunDir(Path(run_dir)).model)
        for name, attack in ATTACKS.items():
            single, brain, reseeded = (
                evaluation.evaluate(
                    model,
                    images,
                    data.labels,
                    attack=one,
                    seed=seed,
                    folder=FLAGS.out and Path(FLAGS.out) / Path(run_dir).name,
                )
                for one, seed in (
                    (attack, 0),
                    (in_bfloat16(attack), 0),
                    (attack, 1),
                )
            )
            cells = [f"{100 * r.accuracy_at(attack.restarts):.1f}" for r in (single, brain)]
            low, high = single.interval_at(attack.restarts)
            cells.insert(1, f"{100 * low:.1f} to {100 * high:.1f}")
            broken = [r.robust_at(attack.restarts) for r in (single, brain)]
            both = int(np.sum(single.standing & brain.standing))
            cells += [f"{broken[0] - both} / {broken[1] - both}"]
            cells += [f"{100 * reseeded.accuracy_at(attack.restarts):.1f}"]
            rows.append([f"{Path(run_dir).name}: {name}", *cells])
            print(" ".join(rows[-1]), flush=True)
    heads = [
        f"{FLAGS.num_images} images",
        "float32",
        "95% interval",
        "bfloat16",
        "standing in one alone",
        "float32, other seed",
    ]
    print("\n" + table(heads, rows))


if __name__ == "__main__":
    flags.DEFINE_list("run_dirs", [], "Folders of trained MNIST models (with model.keras).")
    flags.DEFINE_integer("num_images", 200, "Of the evaluation set.")
    flags.DEFINE_string("data_dir", None, "TFDS folder.")
    flags.DEFINE_string("out", None, "Folder that keeps the results; none: they are printed.")
    app.run(main)
