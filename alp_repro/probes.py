"""A few fixed images, and whether two models' logits on them are the same up to rounding.

The logits on fixed images tell functions apart that no hash of weights or configuration does: a
layer of the user's, an attribute that `call` reads, a state that a copy did not take over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

# Rounding of the logits, as a share of their largest size. Float32 sums in another order differ by
# 1e-5 in deep models; a bfloat16 rounds off 2^-9 in every layer, and a deep model has many.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.15}

_SEED = 20180704


def probe_images(image_shape: tuple[int, ...]) -> np.ndarray:
    """Float32 [4, *image_shape] in [0, 1], always the same: noise twice, dark noise, a ramp."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    noise = generator.random((3, *image_shape), dtype=np.float32)
    noise[2] *= np.float32(0.25)
    ramp = np.linspace(0, 1, int(np.prod(image_shape)), dtype=np.float32).reshape(image_shape)
    return np.concatenate([noise, ramp[None]])


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of two arrays of logits, as a share of the largest logit.

    Infinite where the shapes differ, or one is finite and the other is not.
    """
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(expected)
    if found.shape != expected.shape or np.any(np.isfinite(found) != finite):
        return float("inf")
    if not finite.any():
        return 0.0
    size = max(float(np.abs(expected[finite]).max()), float(np.abs(found[finite]).max()))
    return float(np.abs(found - expected)[finite].max() / size) if size else 0.0


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Lets a GPU multiply float32 as float32, not in TensorFloat-32's ten bits, for a while."""
    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
