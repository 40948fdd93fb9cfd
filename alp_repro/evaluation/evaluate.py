"""Evaluation: attacks on a model and images, adversarial accuracies, optionally stored on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import runs
from alp_repro.attacks.base import Attack
from alp_repro.attacks.batches import DEFAULT_BATCH, Execution
from alp_repro.attacks.phases import Ensemble, as_ensemble
from alp_repro.attacks.presets import attack_named
from alp_repro.attacks.random_points import RandomPoints
from alp_repro.attacks.rounding import rounding_notes
from alp_repro.errors import InputError
from alp_repro.evaluation.clean import predictions
from alp_repro.evaluation.input_check import (
    check_is_keras,
    checked_batch_size,
    checked_folder,
    checked_images,
    checked_indices,
    checked_labels,
)
from alp_repro.evaluation.model_check import checked_logits, restoring_weights, validate_model
from alp_repro.evaluation.progress import progress_bar
from alp_repro.evaluation.record import AttackRecord, new_record
from alp_repro.evaluation.restarts import (
    Executor,
    Progress,
    attack_with_restarts,
    in_this_process,
)
from alp_repro.evaluation.store import (
    attack_file_name,
    attack_result_format,
    attack_settings,
    load_or_compute,
    subject_settings,
)
from alp_repro.validation.arguments import (
    checked_bool,
    checked_details,
    checked_function,
    checked_strategy,
)
from alp_repro.validation.plain_numbers import checked_seed

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
    """Attack any classifier with restarts, until each image is broken or the budget is spent.

    The model's weights are the same afterwards, even if calling the model changes them.

    Args:
      model: maps float32 images in [0, 1] to logits (no softmax). A function of images, or anything
        that `classifiers.load_function_or_model` reads (a file, a SavedModel folder,
        `module:function`), is wrapped by `classifiers.as_classifier`, which removes a softmax.
      images: [n, height, width, channels], uint8 (0-255) or float in [0, 1].
      labels: int [n].
      attack: an attack, an ensemble, or the name of either, such as "pgd" or "strong"; sizes on the
        [0, 1] scale.
      eps: radius of the ball, if the attack is given by name.
      seed: seeds the random starts and targets.
      batch_size: work items in a batch, at most all of them; a larger batch is faster on a GPU. A
        result depends on it only as far as float32 kernels do.
      folder: where the result is stored, under `attack_file_name`. A complete result is loaded, an
        unfinished one is continued, and further restarts are added to it.
      indices: int [n], positions of the images in their data set, for the record.
      image_index: int [n], which seeds an image's random numbers; None: its position.
      record_losses: record the loss after every restart of every image, broken ones included.
      save_adversarial: store the adversarial images.
      surrogate: a model to take gradients from, given like `model`, if the model has none: the
        model without the step that has no gradient (BPDA), or another one (a transfer attack). The
        model classifies every point; losses in the record are the surrogate's.
      allow_random: evaluate a model whose output for an image is not deterministic (noise or
        dropout in inference, batch statistics). Each restart then is a new draw, and an image
        counts as broken if any draw is misclassified, so the accuracy falls with restarts even
        without an attack; the record's settings say so under `random`.
      strategy: a `tf.distribute.Strategy`, for several GPUs.
      jit_compile: compile with XLA; None: only with a GPU.
      progress: show a progress bar; None: in a notebook or on a terminal, unless `report` is given.
      report: called after each batch.
      executor: computes the batches: in this process, or on the workers of a cluster.
      details: further provenance for the result.

    Raises:
      InputError: images or labels of the wrong shape, type or range; a model without logits of two
        or more classes, without a gradient, or whose output is not deterministic; a result in
        `folder` that belongs to something else or is in use by another process.

    Examples:
      >>> layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
      >>> model = keras.Sequential(layers)
      >>> images = np.random.default_rng(0).uniform(size=(6, 8, 8, 1))
      >>> labels = np.argmax(model(images), axis=1)
      >>> attack = alp_repro.PGD(eps=0.1, eps_iter=0.02, nb_iter=5, restarts=2)
      >>> record = alp_repro.evaluate(model, images, labels, attack=attack)
      >>> record.clean_accuracy
      1.0
      >>> record.accuracy_at(2) <= record.accuracy_at(1)
      True
    """
    images = checked_images(images)
    labels = checked_labels(labels, len(images))
    seed, batch_size = checked_seed(seed), checked_batch_size(batch_size)
    indices, details = checked_indices(indices, len(images)), checked_details(details)
    folder = None if folder is None else checked_folder(folder)
    executor = checked_function(executor, name="executor")
    report = None if report is None else checked_function(report, name="report")
    record_losses = checked_bool(record_losses, name="record_losses")
    save_adversarial = checked_bool(save_adversarial, name="save_adversarial")
    allow_random = checked_bool(allow_random, name="allow_random")
    execution = Execution(
        batch_size=batch_size,
        strategy=checked_strategy(strategy),
        jit_compile=None if jit_compile is None else checked_bool(jit_compile, name="jit_compile"),
    )
    if isinstance(attack, str):
        attack = attack_named(attack, eps=eps)
    if not isinstance(attack, Attack | Ensemble):
        raise InputError(
            f"attack is a {type(attack).__name__}: expected an Attack, an Ensemble or a name"
        )
    if as_ensemble(attack).runs_before_budget and record_losses:
        raise InputError(
            "record_losses needs the same restarts for all images: expected an attack without a "
            "budget"
        )
    model = _keras_model(model, images.shape[1:])
    guide = None if surrogate is None else _keras_model(surrogate, images.shape[1:])
    if guide is not None:
        model = _crafted_on(model, guide, images)

    with (
        restoring_weights(model, images.shape[1:]),
        progress_bar(attack, shown=progress, report=report) as update,
    ):
        verdict_model, chance = validate_model(
            model, images, labels, attack=attack, allow_random=allow_random
        )
        settings = {
            "attack": attack_settings(attack),
            "seed": seed,
            "batch_size": batch_size,
            **subject_settings(model, images, labels, verdict_model=verdict_model),
        }
        if guide is not None:  # part of the file name: the model's own record has another
            settings["surrogate"] = runs.weights_hash(guide) if guide.weights else guide.name
        settings |= {"losses": record_losses, "adversarial": save_adversarial}
        if chance is not None:
            settings |= {"random": chance, "function": {**settings["function"], "logits": []}}

        def run(record: AttackRecord, save: Callable[[AttackRecord], None]) -> AttackRecord:
            return attack_with_restarts(
                verdict_model,
                images,
                record,
                attack=_as_crafted(attack),
                seed=seed,
                execution=execution,
                save=save,
                report=update,
                image_index=image_index,
                executor=executor,
            )

        def fresh() -> AttackRecord:
            return new_record(
                labels=labels,
                indices=indices,
                clean_predictions=predictions(verdict_model, images, batch_size=batch_size),
                settings=settings,
                record_losses=record_losses,
                image_shape=images.shape[1:] if save_adversarial else None,
            )

        if folder is None:
            return run(fresh(), lambda record: None)
        return load_or_compute(
            folder / attack_file_name(settings),
            attack_result_format(attack),
            settings=settings,
            fresh=fresh,
            work=run,
            details={**details, "restarts": attack.restarts},
            notes=lambda: rounding_notes(verdict_model, batch_size=batch_size),
        )


def _as_crafted(attack: Attack | Ensemble) -> Attack | Ensemble:
    """Return the attack to run: for eps 0, one that leaves the images as they are."""
    if attack.eps > 0:
        return attack
    return RandomPoints(eps=0.0, restarts=attack.restarts)


def _keras_model(model: Any, image_shape: tuple[int, ...]) -> keras.Model:
    """Return a Keras model unchanged, and a file or a function as one."""
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
