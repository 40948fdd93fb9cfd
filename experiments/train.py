r"""Trains one model into its run folder, or resumes its training.

    python -m experiments.train --flagfile=flags/mnist/clp.cfg
    python -m experiments.train --dataset=mnist --row=mine --regularizer=alp \
        --regularizer_weight=0.5 --adversarial_fraction=0.5 --train_eps=76.5 --train_eps_iter=10 \
        --train_nb_iter=10 --epochs=5

A row's flagfile holds the paper's full settings; flags after it override them.
"""

from __future__ import annotations

from absl import flags

from .console import app
from .flags import settings
from .running import cluster_run, devices
from .running.cluster_run import computing, train_on
from .running.training_run import train_row

FLAGS = flags.FLAGS
settings.define_run_flags()
settings.define_recipe_flags()
devices.define_flags(several_machines=True)
cluster_run.define_flags()
flags.DEFINE_boolean(
    "tensorboard", False, "Write TensorBoard event files to the run folder (not with --ray)."
)


def main(_: list[str]) -> None:
    """Train --row."""
    with computing(FLAGS) as compute:  # before a device is used
        settings.recipe(FLAGS)  # reports contradictions before anything is loaded
        run = settings.run_dir(FLAGS)
        if run.finished:
            print(f"{run.model} exists already")
        elif compute.cluster is not None:
            train_on(compute, FLAGS)
        train_row(FLAGS, compute.devices, tensorboard=FLAGS.tensorboard)
        if compute.devices.writes:
            print(f"trained: {run.model}")


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
