"""Evaluation: a model, images and attacks in; adversarial accuracies out, kept on disk if asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import runs
from alp_repro.attacks.base import Attack
from alp_repro.attacks.batches import DEFAULT_BATCH, Execution
from alp_repro.attacks.pgd import PGD
from alp_repro.attacks.phases import Ensemble, ensemble_of
from alp_repro.attacks.presets import attack_named
from alp_repro.attacks.rounding import rounding_notes
from alp_repro.errors import InputError
from alp_repro.evaluation.clean import predictions
from alp_repro.evaluation.input_check import (
    check_is_keras,
    checked_batch_size,
    checked_details,
    checked_folder,
    checked_images,
    checked_indices,
    checked_labels,
    checked_seed,
)
from alp_repro.evaluation.model_check import admitted_model, checked_logits, weights_kept
from alp_repro.evaluation.progress import progress_bar
from alp_repro.evaluation.record import AttackRecord, new_record
from alp_repro.evaluation.restarts import (
    Executor,
    Progress,
    attack_with_restarts,
    in_this_process,
)
from alp_repro.evaluation.store import attack_name, attack_results, described, keep, subject
from alp_repro.validation.arguments import checked_function, checked_strategy, checked_switch

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def evaluate(  # noqa: PLR0913 - settings, each by its name
    model: keras.Model | str | Path | Callable[..., Any],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: Attack | Ensemble | str,
    eps: float | None = None,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH,
    folder: str | Path | None = None,
    indices: np.ndarray | None = None,
    image_index: np.ndarray | None = None,
    record_losses: bool = False,
    save_adversarial: bool = False,
    surrogate: keras.Model | str | Path | Callable[..., Any] | None = None,
    allow_random: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    jit_compile: bool | None = None,
    progress: bool | None = None,
    report: Callable[[Progress], None] | None = None,
    executor: Executor = in_this_process,
    details: dict[str, Any] | None = None,
) -> AttackRecord:
    """Attacks any Keras model with restarts, until each image is broken or the budget is spent.

    The model's weights are the same afterwards, whatever calling it does to them.

    Args:
      model: maps float32 images in [0, 1] to logits (no softmax). A function of images or what
        `classifiers.load_function_or_model` reads (a file, a SavedModel folder, `module:function`)
        is made into such a model by `classifiers.as_classifier`, with its softmax taken off.
      images: [n, height, width, channels], uint8 (0-255) or float in [0, 1].
      labels: int [n].
      attack: what to do, sizes on the [0, 1] scale: an attack, phases of several, or the name of
        either, as in "pgd" and "strong".
      eps: radius of the ball, where the attack is a name.
      seed: of the random starts and targets.
      batch_size: work items in a batch, no more than there are; more is faster on a GPU. A result
        depends on it only as far as float32 kernels do.
      folder: where the result is kept, under `attack_name`. A result that is there is not computed
        again, an unfinished one is continued, more restarts are added to it.
      indices: int [n], places of the images in their data set, for the record.
      image_index: int [n], what an image's random numbers depend on, where it is not its place.
      record_losses: note the loss after every restart of every image, broken ones too.
      save_adversarial: keep the images that broke.
      surrogate: what the gradients are taken of, as `model`, where the model has none: the model
        itself without the step that has no gradient (BPDA), or another one (a transfer attack).
        The model judges every point; losses in the record are the surrogate's.
      allow_random: evaluate a model that is no function of an image (noise or dropout in inference,
        batch statistics). Each restart then is a new draw, an image counts as broken when one draw
        of them is misclassified, so the accuracy falls with restarts whatever the attack does;
        the settings of the record say so under `random`.
      strategy: of `tf.distribute`, for several GPUs.
      jit_compile: XLA; None: on when a GPU is there.
      progress: show a progress bar; None: in a notebook or on a terminal, unless `report` is given.
      report: called after each batch.
      executor: what computes the batches: this process, or the workers of a cluster.
      details: further provenance for the result.

    Raises:
      InputError: images or labels of the wrong shape, type or range; a model without logits of two
        or more classes, without a gradient, or that is no function of an image; a result in
        `folder` that belongs to something else or is being worked on.
    """
    images = checked_images(images)
    labels = checked_labels(labels, len(images))
    seed, batch_size = checked_seed(seed), checked_batch_size(batch_size)
    indices, details = checked_indices(indices, len(images)), checked_details(details)
    folder = None if folder is None else checked_folder(folder)
    executor = checked_function(executor, name="executor")
    report = None if report is None else checked_function(report, name="report")
    record_losses = checked_switch(record_losses, name="record_losses")
    save_adversarial = checked_switch(save_adversarial, name="save_adversarial")
    allow_random = checked_switch(allow_random, name="allow_random")
    execution = Execution(
        batch_size=batch_size,
        strategy=checked_strategy(strategy),
        jit_compile=None
        if jit_compile is None
        else checked_switch(jit_compile, name="jit_compile"),
    )
    if isinstance(attack, str):
        attack = attack_named(attack, eps=eps)
    if not isinstance(attack, Attack | Ensemble):
        raise InputError(f"attack is a {type(attack).__name__}: an Attack is needed")
    if ensemble_of(attack).judged_by and record_losses:
        raise InputError(
            "record_losses: under a budget images do not get the same restarts; an attack or an "
            "ensemble without one works"
        )
    model = _keras_model(model, images.shape[1:])
    guide = None if surrogate is None else _keras_model(surrogate, images.shape[1:])
    if guide is not None:
        model = _crafted_on(model, guide, images)

    with (
        weights_kept(model, images.shape[1:]),
        progress_bar(attack, shown=progress, report=report) as tell,
    ):
        judge, chance = admitted_model(
            model, images, labels, attack=attack, allow_random=allow_random
        )
        settings = {
            "attack": described(attack),
            "seed": seed,
            "batch_size": batch_size,
            **subject(model, images, labels, judge=judge),
        }
        if guide is not None:  # in the name too: the model's own record may lie beside it
            settings["surrogate"] = runs.weights_hash(guide) if guide.weights else guide.name
        settings |= {"losses": record_losses, "adversarial": save_adversarial}
        if chance is not None:
            settings |= {"random": chance, "function": {**settings["function"], "logits": []}}

        def run(record: AttackRecord, save: Callable[[AttackRecord], None]) -> AttackRecord:
            return attack_with_restarts(
                judge,
                images,
                record,
                attack=_as_crafted(attack),
                seed=seed,
                execution=execution,
                save=save,
                report=tell,
                image_index=image_index,
                executor=executor,
            )

        def fresh() -> AttackRecord:
            return new_record(
                labels=labels,
                indices=indices,
                clean_predictions=predictions(judge, images, batch_size=batch_size),
                settings=settings,
                record_losses=record_losses,
                image_shape=images.shape[1:] if save_adversarial else None,
            )

        if folder is None:
            return run(fresh(), lambda record: None)
        return keep(
            folder / attack_name(settings),
            attack_results(attack),
            settings=settings,
            fresh=fresh,
            work=run,
            details={**details, "restarts": attack.restarts},
            notes=lambda: rounding_notes(judge, batch_size=batch_size),
        )


def _as_crafted(attack: Attack | Ensemble) -> Attack | Ensemble:
    """Where the ball is a point, every attack ends in the image itself: one step does."""
    if attack.eps > 0:
        return attack
    return PGD(eps=0.0, eps_iter=0.0, nb_iter=1, restarts=attack.restarts, random_start=False)


def _keras_model(model: Any, image_shape: tuple[int, ...]) -> keras.Model:
    """The model itself, or what a file or a function is as one."""
    import keras

    from alp_repro.classifiers import as_classifier

    is_model = any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__)
    if (
        is_model
        or isinstance(model, keras.Model)
        or not (callable(model) or isinstance(model, str | Path))
    ):
        check_is_keras(model)
        return model
    height, width, channels = image_shape
    return as_classifier(model, image_shape=(height, width, channels)).model


def _crafted_on(model: keras.Model, guide: keras.Model, images: np.ndarray) -> keras.Model:
    from alp_repro.classifiers.decisions import crafted_on

    for one in (model, guide):
        checked_logits(one, images)
    height, width, channels = images.shape[1:]
    return crafted_on(model, guide, image_shape=(height, width, channels))
