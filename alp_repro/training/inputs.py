"""Checks and conversions of a training's inputs: the model, the images and the labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro.classifiers.heads import LOGITS_ADVICE, sum_to_one
from alp_repro.errors import InputError
from alp_repro.losses import PENALTIES
from alp_repro.models.copies import logits_function
from alp_repro.models.probes import probe_images
from alp_repro.training.objective import Objective

_KERAS_BATCH = 32  # the default of `fit` for arrays
_ROUNDING = 1e-3  # of pixels that were resized or normalised
_WORDS = "expected images in [0, 1]", "expected labels from 0 to"


def unit_scale(images: tf.Tensor) -> tf.Tensor:
    """Return images as float32 in [0, 1]; uint8 ones are divided by 255."""
    floats = tf.cast(images, tf.float32)
    return floats / 255.0 if images.dtype == tf.uint8 else floats


def images_and_labels(data: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the images and the labels of a batch that Keras passes to a step.

    Raises:
      InputError: there are no labels, or there are sample weights.
    """
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if weights is not None:
        raise InputError(
            "sample_weight and class_weight are not supported: logit pairing weighs all images "
            "equally"
        )
    if not tf.is_tensor(images) or labels is None or not tf.is_tensor(labels):
        raise InputError("expected batches of (images, labels), one tensor each")
    return images, labels


def integer_labels(labels: tf.Tensor, *, classes: int) -> tf.Tensor:
    """Convert integer labels, [batch] or [batch, 1], or one-hot ones to int32 [batch].

    Raises:
      InputError: they have another shape.
    """
    shape = labels.shape
    if shape.rank == 2 and shape[1] == 1:
        labels = labels[:, 0]
    elif shape.rank == 2 and shape[1] == classes:
        return tf.argmax(labels, axis=1, output_type=tf.int32)
    elif shape.rank != 1:
        raise InputError(
            f"labels of shape {tuple(shape)}: expected integers [batch] or one-hot rows "
            f"[batch, {classes}], since the model has {classes} logits"
        )
    return tf.cast(labels, tf.int32)


def check_images(images: tf.Tensor) -> None:
    """Raise InputError unless the shape is that of images."""
    if images.shape.rank != 4:
        raise InputError(
            f"images of shape {tuple(images.shape)}: expected [batch, height, width, channels]"
        )


def batch_size_of(x: Any, y: Any, batch_size: int | None) -> int | None:
    """Return the size of the batches that `fit` makes of its arguments; None: not known."""
    if y is not None:
        return batch_size or _KERAS_BATCH
    specs = tf.nest.flatten(getattr(x, "element_spec", None))
    known = isinstance(specs[0], tf.TensorSpec) and specs[0].shape.rank
    return specs[0].shape[0] if known else None


def check_batch_size(size: int | None, objective: Objective) -> None:
    """Raise InputError if a training batch of this size leaves an image without a partner.

    The last batch of an epoch may be shorter and odd: its last image is left out of the pairs. A
    size of None is unknown and not checked.
    """
    if size is None:
        return
    objective.check_batch(size)
    pairing = [name for name in objective.penalties if PENALTIES[name].pairs]
    if pairing and size // objective.virtual_replicas % 2:
        raise InputError(
            f"{pairing[0]} pairs the images of a batch: expected an even batch size, got {size}"
        )


def checked_in_graph(images: tf.Tensor, labels: tf.Tensor, classes: int) -> list[tf.Operation]:
    """Return assertions that the pixels and the labels of a batch are in range; XLA drops them."""
    low, high = tf.reduce_min(labels), tf.reduce_max(labels)
    right = (low >= 0) & (high < classes)
    found = [tf.debugging.Assert(right, [f"{_WORDS[1]} {classes - 1}, got", low, "to", high])]
    if images.dtype != tf.uint8:
        least, largest = tf.reduce_min(images), tf.reduce_max(images)
        right = (least >= -_ROUNDING) & (largest <= 1 + _ROUNDING)
        found.append(tf.debugging.Assert(right, [f"{_WORDS[0]}, got", least, "to", largest]))
    return [each for each in found if each is not None]


def check_arrays(images: Any, labels: Any, classes: int | None) -> None:
    """Raise InputError if arrays have pixels or labels out of range; other inputs are not checked.

    Args:
      images, labels: the arguments of `fit`.
      classes: of the model; None: not known yet.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "fiu" and images.size:
        low, high = float(images.min()), float(images.max())
        if images.dtype != np.uint8 and not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise InputError(f"{_WORDS[0]} (or uint8 ones from 0 to 255), got {low:g} to {high:g}")
    if isinstance(labels, np.ndarray) and labels.size and labels.dtype.kind in "fiu" and classes:
        whole = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
        if whole and not (labels.min() >= 0 and labels.max() < classes):
            raise InputError(f"{_WORDS[1]} {classes - 1}, got {labels.min():g} to {labels.max():g}")
        if not whole and not np.all((labels == 0) | (labels == 1)):
            raise InputError("expected integer or one-hot labels, got rows of other numbers")


@contextlib.contextmanager
def raising_input_errors() -> Iterator[None]:
    """Convert a failed assertion of `checked_in_graph` into an InputError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        message = str(error)
        for words in _WORDS:
            if words in message:
                line = message[message.index(words) :].partition("\n")[0]
                raise InputError(line.replace("] [", " ").rstrip("] [")) from error
        raise


def classes_of(model: keras.Model, image_shape: tuple[int, ...]) -> int:
    """Return the number of classes of a built model, from its outputs for a few images.

    Raises:
      InputError: it does not return logits of two or more classes, but probabilities, for example.
    """
    outputs = logits_function(model)(tf.constant(probe_images(image_shape))).numpy()
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise InputError(
            f"the model returns outputs of shape {(None, *outputs.shape[1:])}: expected logits "
            "[batch, classes] of two or more classes"
        )
    if sum_to_one(outputs):
        raise InputError(f"the model's outputs are probabilities: {LOGITS_ADVICE}")
    return int(outputs.shape[1])
