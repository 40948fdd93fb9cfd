"""Whether a model is what an attack can be judged on: logits that are a function of an image.

Asked on the first images before an evaluation. A model whose answer depends on its batch or on
chance has no adversarial accuracy in the usual sense, and one without a gradient looks robust to
every attack that follows one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.attacks.base import Attack
from alp_repro.attacks.phases import Ensemble
from alp_repro.errors import InputError, NoGradientError, exits_refused, one_line
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


def admitted_model(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: Attack | Ensemble | None = None,
    allow_random: bool = False,
) -> tuple[keras.Model, str | None]:
    """The model that is judged, in float32, and what is left to chance in it.

    Args:
      model: the user's.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      attack: what is to be done with it; None: nothing that needs a gradient.
      allow_random: let a model pass that is no function of an image.

    Returns:
      The model itself, or a float32 copy of one that computes in another dtype; and why it is no
      function of an image, None where it is one.

    Raises:
      InputError: it is nothing that can be judged so.
    """
    classes = checked_logits(model, images).shape[1]
    check_classes(labels, classes)
    chance = why_no_function(model, images)
    if chance is not None and not allow_random:
        raise InputError(
            f"the model is no function of an image: {chance}; an accuracy would fall with each "
            "restart or change with the batch; give it without that, or ask for it with "
            "allow_random=True"
        )
    judge = _float32_judge(model)
    if attack is not None:
        check_gradient(judge, images, labels, attack)
    return judge, chance


def _float32_judge(model: keras.Model) -> keras.Model:
    """The model, or its float32 copy: one for all evaluations, which share what is compiled."""
    if computes_in_float32(model):
        return model
    judge = _copied(model, architecture_hash(model))
    copy_weights(model, judge)
    check_copy(judge, model, "float32")
    return judge


@functools.lru_cache(maxsize=2)
def _copied(model: keras.Model, _architecture: str) -> keras.Model:
    return float32_copy(model)


@contextlib.contextmanager
def weights_kept(model: keras.Model, image_shape: tuple[int, ...]) -> Iterator[None]:
    """Gives a model back the weights it had, should calling it change them (batch norm, seeds)."""
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
    """Makes the weights without a call, which may already change them; what fails is told later."""
    import tensorflow as tf

    trace = tf.function(logits_function(model), autograph=False)
    with contextlib.suppress(Exception):
        trace.get_concrete_function(tf.TensorSpec([None, *image_shape], tf.float32))


def checked_logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Float32 logits of the first few images.

    Args:
      model: anything.
      images: float32 [n, height, width, channels] in [0, 1].

    Raises:
      InputError: it is no Keras model, does not take such images, or gives no logits of two or
        more classes.
    """
    import tensorflow as tf

    from alp_repro.classifiers.heads import why_no_logits

    check_is_keras(model)
    first = tf.constant(images[:_LOOKED_AT])
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and not _fits(tuple(first.shape[1:]), shape[1:]):
        raise InputError(
            f"the model does not take images of shape {images.shape[1:]}: it takes {shape[1:]}"
        )
    if any(not tensor.dtype.startswith(("float", "bfloat")) for tensor in _inputs(model)):
        raise InputError(
            "the model takes integers, which have no gradient: give it a float input in [0, 1], "
            "scaled by a Rescaling layer"
        )
    try:
        with full_float32(), exits_refused("the model"):
            outputs = model(tf.cast(first, model.compute_dtype), training=False)
    except InputError:
        raise
    except Exception as error:  # Keras and the user's layers raise errors of many kinds
        raise InputError(
            f"the model does not take images of shape {images.shape[1:]}: {one_line(error)}"
        ) from error
    if len(getattr(outputs, "shape", ())) != 2:
        what = getattr(outputs, "shape", type(outputs).__name__)
        raise InputError(f"the model gives {what}: logits [n, classes] are needed")
    logits = tf.cast(outputs, tf.float32).numpy()
    _check_logits(logits)
    if why_no_logits(logits) is not None:  # four images may be few to tell: these are others
        further = logits_function(model)(tf.constant(probe_images(images.shape[1:]))).numpy()
        why = why_no_logits(np.concatenate([logits, further]))
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
            "the model has one output, and two or more logits are needed: of a logit z make "
            "[0, z], of a sigmoid's probability take it without the sigmoid first"
        )
    if not np.isfinite(logits).all():
        bad = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise InputError(
            f"the model's logits of image {bad} are not finite: its weights are damaged"
        )


def why_no_function(model: keras.Model, images: np.ndarray) -> str | None:
    """Why the model is no function of an image; None: it is one.

    Args:
      model: maps images to logits.
      images: float32 [n, height, width, channels] in [0, 1].
    """
    import tensorflow as tf

    logits = logits_function(model)
    few = images[:_LOOKED_AT]
    with full_float32():
        once, again = logits(tf.constant(few)).numpy(), logits(tf.constant(few)).numpy()
        among_others = np.concatenate([few, probe_images(images.shape[1:])])
        larger = logits(tf.constant(among_others)).numpy()[: len(few)]
        moved = logits(tf.constant(among_others[::-1].copy())).numpy()[-len(few) :][::-1]
        alone = logits(tf.constant(few[:1])).numpy()
    dtype = "float32" if computes_in_float32(model) else "bfloat16"
    if not rounding_explains(again, once, dtype=dtype):
        return "the same images get other logits each time (dropout or noise in inference?)"
    same_in_others = rounding_explains(larger, once, dtype=dtype)
    # With the others beside it: one image's logits may all be near each other.
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
    """NoGradientError when the attack needs a gradient that the model does not have.

    Args:
      model: maps images to logits.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int [n].
      attack: what is to be done with it.

    Raises:
      NoGradientError: an InputError of its own, so that no other refusal is taken for it.
      InputError: the loss needs more classes.
    """
    import tensorflow as tf

    points = tf.constant(np.concatenate([images[:_LOOKED_AT], probe_images(images.shape[1:])]))
    logits = logits_function(model)
    classes = logits(points).shape[1]
    if classes < attack.least_classes:
        raise InputError(
            f"attack {attack}: {classes} classes; it needs {attack.least_classes} or more"
        )
    if not attack.needs_gradient:
        return

    # TensorFlow's eager gradient of some convolutions corrupts the memory (2.21).
    @tf.function(autograph=False)
    def gradient_at_points() -> tf.Tensor | None:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            outputs = logits(points)
            weights = tf.range(1.0, outputs.shape[1] + 1.0)  # no sum that a softmax holds at 1
            total = tf.reduce_sum(outputs * weights)
        return tape.gradient(total, points)

    try:
        gradient = gradient_at_points()
    except Exception as error:  # AutoGraph has an error of its own for what is a LookupError
        if "gradient registry" in str(error) or "No gradient defined" in str(error):
            raise _no_gradient(one_line(error)) from error
        raise
    if gradient is None:
        raise _no_gradient("a rounding, a cast to integers or stop_gradient lies between")
    if not np.any(gradient):
        raise _no_gradient("it is 0 at all images that were tried")


def _no_gradient(why: str) -> NoGradientError:
    return NoGradientError(
        f"the model's logits have no gradient in the images ({why}), and an attack that follows "
        "one would find nothing: take the layer out, give it a gradient, or attack with spsa"
    )
