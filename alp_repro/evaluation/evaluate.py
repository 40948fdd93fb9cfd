"""Evaluation: a model, images and attacks in; adversarial accuracies out, kept on disk if asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro.attacks.batches import DEFAULT_BATCH, Execution
from alp_repro.attacks.settings import Attack
from alp_repro.errors import InputError
from alp_repro.evaluation.record import AttackRecord, new_record
from alp_repro.evaluation.restarts import Progress, attack_with_restarts
from alp_repro.evaluation.store import attack_name, attack_results, described, keep, subject
from alp_repro.model_copies import float32_model, logits_function
from alp_repro.program_cache import kept_for_models


def evaluate(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: Attack,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH,
    folder: str | Path | None = None,
    indices: np.ndarray | None = None,
    record_losses: bool = False,
    save_adversarial: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    jit_compile: bool | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    details: dict[str, Any] | None = None,
) -> AttackRecord:
    """Attacks any Keras model with restarts, until each image is broken or the budget is spent.

    Args:
      model: maps float32 images in [0, 1] to logits (no softmax).
      images: float [n, height, width, channels] in [0, 1].
      labels: int [n].
      attack: what to do; sizes on the [0, 1] scale.
      seed: of the random starts and targets.
      batch_size: work items in a batch; more is faster on a GPU. A result depends on it only as far
        as float32 kernels do.
      folder: where the result is kept, under `attack_name`. A result that is there is not computed
        again, an unfinished one is gone on with, more restarts are added to it.
      indices: int [n], places of the images in their data set, for the record.
      record_losses: note the loss after every restart of every image, broken ones too.
      save_adversarial: keep the images that broke.
      strategy: of `tf.distribute`, for several GPUs.
      jit_compile: XLA; None: on when a GPU is there.
      report: called after each batch.
      details: further provenance for the result.

    Raises:
      InputError: images or labels of the wrong shape, type or range; outputs that are
        probabilities; a result in `folder` that belongs to something else or is being worked on.
    """
    images, labels = _checked(model, images, labels)
    _check_numbers(seed=seed, batch_size=batch_size, indices=indices, num_images=len(labels))
    settings = _settings(model, images, labels, attack, seed, batch_size)
    settings |= {"losses": record_losses, "adversarial": save_adversarial}
    execution = Execution(batch_size=batch_size, strategy=strategy, jit_compile=jit_compile)

    def run(record: AttackRecord, save: Callable[[AttackRecord], None]) -> AttackRecord:
        return attack_with_restarts(
            model,
            images,
            record,
            attack=attack,
            seed=seed,
            execution=execution,
            save=save,
            report=report,
        )

    def fresh() -> AttackRecord:
        return new_record(
            labels=labels,
            indices=np.arange(len(labels)) if indices is None else indices,
            clean_predictions=predictions(float32_model(model), images, batch_size=batch_size),
            settings=settings,
            record_losses=record_losses,
            image_shape=images.shape[1:] if save_adversarial else None,
        )

    if folder is None:
        return run(fresh(), lambda record: None)
    return keep(
        Path(folder) / attack_name(settings),
        attack_results(attack),
        settings=settings,
        fresh=fresh,
        work=run,
        details={**(details or {}), "restarts": attack.restarts},
    )


def predictions(model: keras.Model, images: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Predicted classes, int32 [n], in batches of one shape."""
    logits = _compiled_logits(model, images.shape[1:])
    found = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        short = batch_size - len(batch)
        padded = np.pad(batch, ((0, short), (0, 0), (0, 0), (0, 0)))
        found.append(np.argmax(logits(tf.constant(padded)).numpy()[: len(batch)], axis=1))
    return np.concatenate(found).astype(np.int32)


@kept_for_models(maxsize=2)
def _compiled_logits(
    model: keras.Model, image_shape: tuple[int, ...]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Traced once for all attacks on a model."""
    return tf.function(logits_function(model))


def _settings(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    attack: Attack,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    return {
        "attack": described(attack),
        "seed": seed,
        "batch_size": batch_size,
        **subject(model, images, labels),
    }


def _checked(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The door: images and labels as the engine takes them."""
    if not isinstance(model, keras.Model):
        raise InputError(f"the model is a {type(model).__name__}: a keras.Model is needed")
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or len(images) == 0:
        raise InputError(
            f"images of shape {images.shape}: [n, height, width, channels] with n > 0 is needed"
        )
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images of type {images.dtype}: floats in [0, 1] (divide by 255)")
    images = images.astype(np.float32)
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise InputError(
            f"images in [{images.min():g}, {images.max():g}]: values in [0, 1] are needed"
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels of shape {labels.shape} and type {labels.dtype}: {len(images)} integers needed"
        )
    try:
        outputs = model(images[:1], training=False)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise InputError(
            f"the model does not take images of shape {images.shape[1:]}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if len(getattr(outputs, "shape", ())) != 2:
        what = getattr(outputs, "shape", type(outputs).__name__)
        raise InputError(f"the model gives {what}: logits [n, classes] are needed")
    probabilities = np.asarray(outputs, np.float32)
    if not np.isfinite(probabilities).all():
        raise InputError("the model's logits are not finite: its weights are damaged")
    if probabilities.min() >= 0 and abs(probabilities.sum() - 1) < 1e-3:
        raise InputError(
            "the model's outputs are probabilities: give it without its softmax (logits), which "
            "would hide gradients from the attack"
        )
    classes = outputs.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels in [{labels.min()}, {labels.max()}]: the model has classes 0 to {classes - 1}"
        )
    return images, labels.astype(np.int32)


def _check_numbers(
    *, seed: int, batch_size: int, indices: np.ndarray | None, num_images: int
) -> None:
    if not 0 <= seed < 2**31:
        raise InputError(f"seed {seed}: a number in [0, 2^31) is needed")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: a count of 1 or more is needed")
    if indices is not None and np.shape(indices) != (num_images,):
        raise InputError(f"indices of shape {np.shape(indices)}: one for each image is needed")
