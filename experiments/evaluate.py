r"""Attacks a trained model with each attack of a grid; results on disk are not computed again.

    python -m experiments.evaluate --dataset=mnist --row=clp --grid=table1 --max_restarts=100
    python -m experiments.evaluate --dataset=mnist --row=clp --attack=strong \
        --attack=pgd,eps=76.5,eps_iter=10,nb_iter=100,restarts=20

    python -m experiments.evaluate --model=my_model.keras --data=my_images.npz --out=results \
        --attack=pgd,eps=8,eps_iter=2,nb_iter=20,restarts=10

Each attack's result is stored in <run>/attacks/, or in --out. A call with more restarts continues
the result of an earlier one. Sizes are on the 0-255 scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags

from alp_repro import runs
from alp_repro.errors import InputError

from .console import app
from .flags import settings
from .flags.classifier_flags import define_classifier_flags, own_images, pixels
from .running import cluster_run, devices
from .running.cluster_run import Compute, computing
from .running.evaluation_run import attack_run, evaluator

if TYPE_CHECKING:
    from alp_repro.attacks import Attack, Ensemble
    from alp_repro.evaluation import AttackRecord

FLAGS = flags.FLAGS
settings.define_run_flags()
settings.define_attack_flags()
devices.define_flags()
cluster_run.define_flags()
define_classifier_flags()
flags.DEFINE_string("out", None, "With --model: folder of the results (default: not stored).")


def main(_: list[str]) -> None:
    """Evaluate --row, or any --model on any --data."""
    with computing(FLAGS) as compute:  # before anything touches a device
        grid = [settings.capped(attack, FLAGS) for attack in settings.attack_grid(FLAGS)]
        results = of_classifier if FLAGS.model else of_row
        for attack, record in results(grid, compute):
            low, high = record.interval_at(attack.restarts)
            mean = (
                ""
                if record.broken is None
                else f" (mean {record.mean_accuracy(attack.restarts):.1%})"
            )
            print(
                f"{attack}: clean {record.clean_accuracy:.1%}, adversarial accuracy "
                f"{record.accuracy_at(attack.restarts):.1%} [{low:.1%}, {high:.1%}]{mean} on "
                f"{len(record.labels)} images",
                flush=True,
            )


def of_row(
    grid: list[Attack | Ensemble], compute: Compute
) -> Iterator[tuple[Attack | Ensemble, AttackRecord]]:
    """Yield the results of a run's model on its data set's evaluation images."""
    run = settings.run_dir(FLAGS)
    model = runs.load_model(run.model)
    for attack in grid:
        record = attack_run(FLAGS, run, model, attack, compute.devices, executor=compute.executor())
        yield attack, record


def of_classifier(
    grid: list[Attack | Ensemble], compute: Compute
) -> Iterator[tuple[Attack | Ensemble, AttackRecord]]:
    """Yield the results of --model on --data.

    Raises:
      InputError: --data is not given, or an attack has no eps, which has no default here.
    """
    if not FLAGS.data:
        raise InputError("--model requires images, as in --data=my_images.npz")
    if FLAGS.grid or not all(",eps=" in spec for spec in FLAGS.attack):
        raise InputError(
            "--model requires eps in every attack, as in --attack=pgd,eps=8,eps_iter=2"
        )
    from alp_repro.classifiers import as_classifier

    data = own_images(FLAGS)
    classifier = as_classifier(
        FLAGS.model,
        image_shape=data.images.shape[1:],
        pixels=pixels(FLAGS),
        trust_code=FLAGS.trust_code,
    )
    for note in (*data.notes, *classifier.notes):
        print(note)
    chosen = compute.devices
    for attack in grid:
        record = evaluator(FLAGS, chosen)(
            classifier.model,
            data.images,
            data.labels,
            attack=attack,
            folder=FLAGS.out,
            record_losses=FLAGS.record_losses,
            executor=compute.executor(),
            details={"device": chosen.description, "data_source": data.source},
        )
        yield attack, record


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
