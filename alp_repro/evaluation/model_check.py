"""Checks that a model can be evaluated: deterministic logits, and a gradient if one is needed.

They run on the first images before an evaluation. A model whose logits depend on the batch or on
chance has no adversarial accuracy in the usual sense, and one without a gradient looks robust to
every attack that follows gradients.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.attacks.base import Attack
from alp_repro.attacks.phases import Ensemble
from alp_repro.errors import InputError, NoGradientError, one_line, sys_exit_refused
from alp_repro.evaluation.input_check import check_classes, check_is_keras
from alp_repro.models.copies import (
    check_copy,
    computes_in_float32,
    copy_weights,
    float32_copy,
    logits_function,
)
from alp_repro.models.identity import architecture_hash
from alp_repro.models.probes import full_float32, probe_images, rounding_explains

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_LOOKED_AT = 4  # images


def validate_model(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: Attack | Ensemble | None = None,
    allow_random: bool = False,
) -> tuple[keras.Model, str | None]:
    """Check a model and return it in float32, with the reason why it is not deterministic, if any.

    Args:
      model: the user's model.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      attack: the attack that will run; None: nothing that needs a gradient.
      allow_random: accept a model whose output is not deterministic.

    Returns:
      The model itself, or a float32 copy if it computes in another dtype; and why its output for an
      image is not deterministic, None if it is.

    Raises:
      InputError: the model cannot be evaluated.
    """
    classes = checked_logits(model, images).shape[1]
    check_classes(labels, classes)
    chance = why_not_deterministic(model, images)
    if chance is not None and not allow_random:
        raise InputError(
            f"the model's output for an image is not deterministic: {chance}; its accuracy would "
            "fall with each restart or change with the batch; remove the cause, or set "
            "allow_random=True"
        )
    verdict_model = _float32_model(model)
    if attack is not None:
        check_gradient(verdict_model, images, labels, attack)
    return verdict_model, chance


def _float32_model(model: keras.Model) -> keras.Model:
    """Return the model or its float32 copy, cached so that evaluations share compiled programs."""
    if computes_in_float32(model):
        return model
    verdict_model = _copied(model, architecture_hash(model))
    copy_weights(model, verdict_model)
    check_copy(verdict_model, model, "float32")
    return verdict_model


@functools.lru_cache(maxsize=2)
def _copied(model: keras.Model, _architecture: str) -> keras.Model:
    return float32_copy(model)


@contextlib.contextmanager
def restoring_weights(model: keras.Model, image_shape: tuple[int, ...]) -> Iterator[None]:
    """Restore a model's weights afterwards, in case calls change them (batch norm, seeds)."""
    if not model.built:
        _build(model, image_shape)
    before = [(variable, variable.numpy()) for variable in model.non_trainable_variables]
    try:
        yield
    finally:
        for variable, value in before:
            if not np.array_equal(variable.numpy(), value, equal_nan=value.dtype.kind == "f"):
                variable.assign(value)


def _build(model: keras.Model, image_shape: tuple[int, ...]) -> None:
    """Create the weights without a call, which could change them; later checks report failures."""
    import tensorflow as tf

    trace = tf.function(logits_function(model), autograph=False)
    with contextlib.suppress(Exception):
        trace.get_concrete_function(tf.TensorSpec([None, *image_shape], tf.float32))


def checked_logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the float32 logits of the first few images.

    Args:
      model: any object.
      images: float32 [n, height, width, channels] in [0, 1].

    Raises:
      InputError: not a Keras model, or one that does not take such images or does not return logits
        of two or more classes.
    """
    import tensorflow as tf

    from alp_repro.classifiers.heads import why_not_logits

    check_is_keras(model)
    first = tf.constant(images[:_LOOKED_AT])
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and not _fits(tuple(first.shape[1:]), shape[1:]):
        raise InputError(f"the model expects images of shape {shape[1:]}, got {images.shape[1:]}")
    if any(not tensor.dtype.startswith(("float", "bfloat")) for tensor in _inputs(model)):
        raise InputError(
            "the model takes integers, which have no gradient: expected a float input in [0, 1]; a "
            "Rescaling layer can scale it"
        )
    try:
        with full_float32(), sys_exit_refused("the model"):
            outputs = model(tf.cast(first, model.compute_dtype), training=False)
    except InputError:
        raise
    except Exception as error:  # Keras and the user's layers raise errors of many kinds
        raise InputError(
            f"the model failed on images of shape {images.shape[1:]}: {one_line(error)}"
        ) from error
    if len(getattr(outputs, "shape", ())) != 2:
        what = getattr(outputs, "shape", type(outputs).__name__)
        raise InputError(f"the model returns {what}: expected logits [n, classes]")
    logits = tf.cast(outputs, tf.float32).numpy()
    _check_logits(logits)
    if why_not_logits(logits) is not None:  # four images may be too few to decide: try others
        further = logits_function(model)(tf.constant(probe_images(images.shape[1:]))).numpy()
        why = why_not_logits(np.concatenate([logits, further]))
        if why is not None:
            raise InputError(why)
    return logits


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        b is None or a == b for a, b in zip(shape, wanted, strict=True)
    )


def _inputs(model: keras.Model) -> list[keras.KerasTensor]:
    return getattr(model, "inputs", None) or []


def _check_logits(logits: np.ndarray) -> None:
    if logits.shape[1] < 2:
        raise InputError(
            "the model has one output: expected two or more logits; turn a logit z into [0, z], "
            "and remove a sigmoid first"
        )
    if not np.isfinite(logits).all():
        bad = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise InputError(
            f"the model's logits for image {bad} are not finite: its weights may be damaged"
        )


def why_not_deterministic(model: keras.Model, images: np.ndarray) -> str | None:
    """Return why a model's output for an image is not deterministic; None if it is.

    Results of such models store these strings.

    Args:
      model: maps images to logits.
      images: float32 [n, height, width, channels] in [0, 1].
    """
    import tensorflow as tf

    if changes_each_time(model, images):
        return "the same images get other logits each time (dropout or noise in inference?)"
    logits = logits_function(model)
    few = images[:_LOOKED_AT]
    with full_float32():
        once = logits(tf.constant(few)).numpy()
        among_others = np.concatenate([few, probe_images(images.shape[1:])])
        larger = logits(tf.constant(among_others)).numpy()[: len(few)]
        moved = logits(tf.constant(among_others[::-1].copy())).numpy()[-len(few) :][::-1]
        alone = logits(tf.constant(few[:1])).numpy()
    dtype = "float32" if computes_in_float32(model) else "bfloat16"
    same_in_others = rounding_explains(larger, once, dtype=dtype)
    # Compared together with the others: the logits of a single image may all be close.
    alone = np.concatenate([alone, once[1:]])
    if not (same_in_others and rounding_explains(alone, once, dtype=dtype)):
        return (
            "an image's logits depend on the other images of its batch (batch norm called with "
            "training=True?)"
        )
    if not rounding_explains(moved, once, dtype=dtype):
        return "an image's logits depend on its place in the batch (noise of a fixed seed?)"
    return None


def changes_each_time(model: keras.Model, images: np.ndarray) -> bool:
    """Return whether the first few images get other logits in another pass over them.

    Args:
      model: maps images to logits.
      images: float32 [n, height, width, channels] in [0, 1].
    """
    import tensorflow as tf

    logits, few = logits_function(model), tf.constant(images[:_LOOKED_AT])
    with full_float32():
        once, again = logits(few).numpy(), logits(few).numpy()
    dtype = "float32" if computes_in_float32(model) else "bfloat16"
    return not rounding_explains(again, once, dtype=dtype)


def check_gradient(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, attack: Attack | Ensemble
) -> None:
    """Raise NoGradientError if the attack needs a gradient that the model does not have.

    Args:
      model: maps images to logits.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int [n].
      attack: the attack that will run.

    Raises:
      NoGradientError: a subclass of InputError, so that callers can tell it from other errors.
      InputError: the loss needs more classes.
    """
    import tensorflow as tf

    points = tf.constant(np.concatenate([images[:_LOOKED_AT], probe_images(images.shape[1:])]))
    logits = logits_function(model)
    classes = logits(points).shape[1]
    if classes < attack.min_classes:
        raise InputError(
            f"attack {attack}: expected {attack.min_classes} or more classes, got {classes}"
        )
    if not attack.needs_gradient:
        return

    # TensorFlow's eager gradient of some convolutions corrupts the memory (2.21).
    @tf.function(autograph=False)
    def gradient_at_points() -> tf.Tensor | None:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            outputs = logits(points)
            weights = tf.range(1.0, outputs.shape[1] + 1.0)  # a softmax's plain sum is constant
            total = tf.reduce_sum(outputs * weights)
        return tape.gradient(total, points)

    try:
        # Called as it is, TensorFlow would warn of the repeated tracing in every fifth call.
        gradient = gradient_at_points.get_concrete_function()()
    except Exception as error:  # AutoGraph wraps a LookupError in another error
        if "gradient registry" in str(error) or "No gradient defined" in str(error):
            raise _no_gradient(one_line(error)) from error
        raise
    if gradient is None:
        raise _no_gradient("rounding, a cast to integers or stop_gradient blocks it")
    if not np.any(gradient):
        raise _no_gradient("it is 0 at all tested images")


def _no_gradient(why: str) -> NoGradientError:
    return NoGradientError(
        f"the model's logits have no gradient with respect to the images ({why}), so a gradient "
        "attack would find nothing: remove the layer, give it a gradient, or use square or spsa"
    )
