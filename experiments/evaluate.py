r"""Attacks a trained model with every attack of a grid; results that are there are not repeated.

    python -m experiments.evaluate --dataset=mnist --row=clp --grid=table1 --max_restarts=100
    python -m experiments.evaluate --dataset=mnist --row=clp --attack=strong \
        --attack=pgd,eps=76.5,eps_iter=10,nb_iter=100,restarts=20

Each attack's result lies in <run>/attacks/. Asking for more restarts goes on where the last call
stopped. Sizes are on the 0-255 scale.
"""

from __future__ import annotations

from absl import flags

from alp_repro import runs

from . import app, devices, settings
from .evaluation_run import attack_run

FLAGS = flags.FLAGS
settings.define_run_flags()
settings.define_attack_flags()
devices.define_flags()


def main(_: list[str]) -> None:
    """Evaluates --row."""
    chosen = devices.choose()  # before anything touches a device
    grid = [settings.capped(attack, FLAGS) for attack in settings.attack_grid(FLAGS)]
    run = settings.run_dir(FLAGS)
    model = runs.load_model(run.model)
    for attack in grid:
        record = attack_run(FLAGS, run, model, attack, chosen)
        low, high = record.interval_at(attack.restarts)
        mean = (
            "" if record.broken is None else f" (mean {record.mean_accuracy(attack.restarts):.1%})"
        )
        print(
            f"{attack}: clean {record.clean_accuracy:.1%}, adversarial accuracy "
            f"{record.accuracy_at(attack.restarts):.1%} [{low:.1%}, {high:.1%}]{mean} on "
            f"{len(record.labels)} images",
            flush=True,
        )


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
