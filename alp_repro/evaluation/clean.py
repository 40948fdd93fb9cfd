"""A model's logits and predictions on clean images, in batches of one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.errors import InputError
from alp_repro.models.copies import logits_function
from alp_repro.models.program_cache import cached_for_models

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def batched(
    function: Callable[..., tf.Tensor], batch_size: int, *arrays: np.ndarray
) -> list[np.ndarray]:
    """Apply a compiled function to arrays of any length in batches of one shape.

    The last batch is padded with its own first row; every output has one row per input.
    """
    import tensorflow as tf

    count = len(arrays[0])
    found: list[list[np.ndarray]] = []
    for start in range(0, count, batch_size):
        chosen = np.arange(start, start + batch_size)
        kept = min(batch_size, count - start)
        chosen[kept:] = start
        outputs = function(*(tf.constant(array[chosen]) for array in arrays))
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        found.append([np.asarray(output)[:kept] for output in outputs])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def clean_logits(model: keras.Model, images: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Return logits, float32 [n, classes].

    Raises:
      InputError: some are not finite; the message names the first such image.
    """
    program = _compiled_logits(model, images.shape[1:])
    (logits,) = batched(program, min(batch_size, len(images)), images)
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise InputError(
            f"the model's logits for image {bad[0]} are not finite ({len(bad)} of {len(images)} "
            "images are affected): leave them out, or check the model for overflow and for "
            "another pixel range"
        )
    return logits


def predictions(model: keras.Model, images: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Return predicted classes, int32 [n]; InputError as `clean_logits`."""
    logits = clean_logits(model, images, batch_size=batch_size)
    return logits.argmax(axis=1).astype(np.int32)


@cached_for_models(maxsize=2)
def _compiled_logits(
    model: keras.Model, image_shape: tuple[int, ...]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the logits function, traced once for all attacks on a model."""
    import tensorflow as tf

    return tf.function(logits_function(model), autograph=False)
