"""Resident memory while restarts go on: how much it grows from restart 10 to the last.

python -m benchmarks.memory
"""

from __future__ import annotations

import keras
import numpy as np
from absl import flags

from alp_repro.attacks import PGD, Execution
from alp_repro.evaluation import restarts
from alp_repro.evaluation.record import new_record
from experiments.console import app

FLAGS = flags.FLAGS


def resident_megabytes() -> float:
    """VmRSS of this process (Linux)."""
    with open("/proc/self/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main(argv: list[str]) -> None:
    del argv
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    images = np.random.default_rng(0).random((8, 12, 12, 1), np.float32)
    labels = np.argmax(model(images).numpy(), axis=1)
    record = new_record(labels=labels, indices=np.arange(8), clean_predictions=labels, settings={})
    seen: dict[int, float] = {}

    def note(progress: restarts.Progress) -> None:
        seen[progress.restarts_done] = resident_megabytes()

    # So small a radius that no image breaks: every restart is run on every image.
    attack = PGD(eps=1e-6, eps_iter=1e-6, nb_iter=20, restarts=FLAGS.restarts)
    execution = Execution(batch_size=8)
    restarts.attack_with_restarts(
        model, images, record, attack=attack, seed=0, execution=execution, report=note
    )
    for restart in (10, 100, 1000, FLAGS.restarts):
        if restart in seen:
            print(f"restart {restart}: {seen[restart]:.1f} MB")
    print(f"growth from restart 10: {seen[FLAGS.restarts] - seen[10]:.1f} MB")


if __name__ == "__main__":
    flags.DEFINE_integer("restarts", 2000, "How far.")
    app.run(main)
