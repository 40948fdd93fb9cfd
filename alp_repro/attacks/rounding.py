"""Batch sizes at which an image's result does not depend on its position in the batch.

A matrix product sums each row in the order of the kernel that computes it. On x86 processors with
AVX2 and without AVX-512, oneDNN's kernel takes six rows at a time and rounds a remainder of one to
three rows differently, and vectorised functions such as `exp` compute the last numbers of an array
by another formula. The result for an image then depends on its position in the batch, by 1e-7
relative. A batch with a few more rows has no such remainder, so every program is probed when it is
made, and its batches are padded to the next size at which all rows are rounded alike.
docs/exactness.md has the measurements.
"""

from __future__ import annotations

import dataclasses
import hashlib
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro.models.copies import LogitsFunction, logits_function
from alp_repro.models.probes import probe_images

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# Multiples of what kernels process at a time: 6 rows (AVX2) of vectors of 4 to 16 numbers.
_BLOCKS = (12, 24, 48, 96)


@dataclasses.dataclass(frozen=True)
class Rounding:
    """The rounding of a model's logits and gradients in batches of one size.

    Attributes:
      rows: the batch size that programs use: the requested one, or slightly more.
      exact: every row of such a batch is rounded alike, so that the outcome of an item does not
        depend on its position or its neighbours in the batch.
      fingerprint: eight hex digits of a hash of a fixed image's logits and gradient. Two results of
        one model are comparable bit by bit if their fingerprints agree: other kernels, threads or
        batch sizes may change it.
    """

    rows: int
    exact: bool
    fingerprint: str


_noted: weakref.WeakKeyDictionary[keras.Model, dict[Any, Rounding]] = weakref.WeakKeyDictionary()


def find_rounding(
    model: keras.Model,
    crafter: keras.Model,
    *,
    image_shape: tuple[int, ...],
    batch_size: int,
    jit_compile: bool = False,
) -> Rounding:
    """Return the smallest batch of at least `batch_size` rows that are all rounded alike.

    If none of the sizes tried has this property, `batch_size` itself with `exact` False.

    Args:
      model: the float32 model under attack.
      crafter: the model or its copy in the crafting dtype.
      image_shape: height, width, channels.
      batch_size: items of a batch.
      jit_compile: compile with XLA.
    """
    key = (crafter.compute_dtype, image_shape, batch_size, jit_compile)
    known = _noted.setdefault(model, {})
    if key not in known:
        known[key] = _probed(model, crafter, image_shape, batch_size, jit_compile)
    return known[key]


def rounding_notes(model: keras.Model, *, batch_size: int) -> dict[str, Any]:
    """Return how this process's programs round a model, for a result's provenance.

    Args:
      model: the float32 model under attack.
      batch_size: the requested one.

    Returns:
      `rounding`: a dict of `Rounding`'s fields for each crafting dtype; empty if this process has
      not made a program yet.
    """
    found = {
        dtype: dataclasses.asdict(rounding)
        for (dtype, _, size, _), rounding in _noted.get(model, {}).items()
        if size == batch_size
    }
    return {"rounding": found} if found else {}


def _probed(
    model: keras.Model,
    crafter: keras.Model,
    image_shape: tuple[int, ...],
    batch_size: int,
    jit_compile: bool,
) -> Rounding:
    import tensorflow as tf

    model_logits, crafter_logits = logits_function(model), logits_function(crafter)
    image = tf.constant(probe_images(image_shape)[:1])

    # One trace for any number of rows.
    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, *image_shape], tf.float32)],
        jit_compile=jit_compile,
    )
    def values(images: tf.Tensor) -> list[tf.Tensor]:
        logits, gradient = _logits_and_gradient(crafter_logits, images)
        return [model_logits(images), logits, gradient]

    first: Rounding | None = None
    for rows in _sizes(batch_size):
        found = [value.numpy() for value in values(tf.repeat(image, rows, axis=0))]
        exact = all(
            np.array_equal(v, np.repeat(v[:1], rows, axis=0), equal_nan=True) for v in found
        )
        bits = b"".join(value[0].tobytes() for value in found)
        rounding = Rounding(rows, exact, hashlib.sha256(bits).hexdigest()[:8])
        if exact:
            return rounding
        first = first or rounding
    assert first is not None
    return first


def _sizes(batch_size: int) -> Iterator[int]:
    """Yield the batch sizes to try, ascending."""
    yield batch_size
    for block in _BLOCKS:
        if rest := -batch_size % block:
            yield batch_size + rest


def _logits_and_gradient(
    logits_of: LogitsFunction, images: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = logits_of(images)
        # Like an attack's losses this has a gradient of each logit that depends on all of them.
        loss = tf.reduce_sum(tf.reduce_logsumexp(logits, axis=1) - logits[:, 0])
    try:
        return logits, tape.gradient(loss, images, unconnected_gradients="zero")
    except LookupError:  # an operation without a gradient; attacks that need one were refused
        return logits, tf.zeros_like(images)
