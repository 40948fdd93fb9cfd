"""Whether an image's last bits depend on its place in a batch here, and what can be done about it.

A matrix product adds up each row in the order of the kernel that computes it. On x86 processors
with AVX2 and without AVX-512, oneDNN's kernel takes six rows at a time and rounds a rest of one to
three rows in another way, and vectorised functions such as `exp` compute the last numbers of an
array by another formula. An image then depends on its place in the batch, by 1e-7 relative. A
batch with a few rows more has no such rest, so every program is probed when it is made and its
batches are filled up to the next size at which all rows are rounded alike. docs/exactness.md has
the measurements.
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
    """How a model's logits and gradients are rounded in batches of one size.

    Attributes:
      rows: the batch size that programs use: what was asked for, or somewhat more.
      exact: every row of such a batch is rounded alike, so that the outcome of an item does not
        depend on its place and its neighbours in the batch.
      fingerprint: eight hex digits of the bits of a fixed image's logits and gradient. Two results
        of one model are comparable bit by bit where it is the same: other kernels, threads or batch
        sizes may change it.
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

    Where there is none among those that are tried, `batch_size` itself with `exact` False.

    Args:
      model: float32, gives the verdict.
      crafter: the model or its copy in the crafting dtype.
      image_shape: height, width, channels.
      batch_size: items of a batch.
      jit_compile: with XLA.
    """
    key = (crafter.compute_dtype, image_shape, batch_size, jit_compile)
    known = _noted.setdefault(model, {})
    if key not in known:
        known[key] = _probed(model, crafter, image_shape, batch_size, jit_compile)
    return known[key]


def rounding_notes(model: keras.Model, *, batch_size: int) -> dict[str, Any]:
    """Return for a result's provenance how the programs of this process round a model.

    Args:
      model: the one that gave the verdicts.
      batch_size: that was asked for.

    Returns:
      `rounding`: a dict of `Rounding`'s fields for each crafting dtype; empty before a program was
      made in this process.
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

    judge, crafting = logits_function(model), logits_function(crafter)
    image = tf.constant(probe_images(image_shape)[:1])

    # Of any number of rows: traced once.
    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, *image_shape], tf.float32)],
        jit_compile=jit_compile,
    )
    def values(images: tf.Tensor) -> list[tf.Tensor]:
        logits, gradient = _logits_and_gradient(crafting, images)
        return [judge(images), logits, gradient]

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
    except LookupError:  # an operation that has none: attacks that ask for it are refused before
        return logits, tf.zeros_like(images)
