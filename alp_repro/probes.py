"""A few fixed images, and whether two models' logits on them are the same up to rounding.

The logits on fixed images tell functions apart that no hash of weights or configuration does: a
layer of the user's, an attribute that `call` reads, a state that a copy did not take over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass

_SEED = 20180704


def probe_images(image_shape: tuple[int, ...]) -> np.ndarray:
    """Float32 [4, *image_shape] in [0, 1], always the same: noise twice, dark noise, a ramp."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    noise = generator.random((3, *image_shape), dtype=np.float32)
    noise[2] *= np.float32(0.25)
    ramp = np.linspace(0, 1, int(np.prod(image_shape)), dtype=np.float32).reshape(image_shape)
    return np.concatenate([noise, ramp[None]])


def rounding_explains(found: np.ndarray, expected: np.ndarray, *, dtype: str = "float32") -> bool:
    """Whether two arrays of logits are the same up to the rounding of a dtype.

    Float32: sums in another order differ by 1e-5 of the largest logit in deep models; 1e-3 passes.
    Bfloat16 keeps eight bits, and on a rugged model single logits differ by a tenth of the largest:
    their root mean square is compared, 0.3 to 3% in our models and far more in a wrong copy; 10%
    pass. An array that is finite elsewhere than the other is another one.

    Args:
      found, expected: of one model, or of two that should be the same.
      dtype: the coarser of those they were computed in: float32, or any of bfloat16's.
    """
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(expected)
    if found.shape != expected.shape or np.any(np.isfinite(found) != finite):
        return False
    if not finite.any():
        return True
    apart, size = np.abs(found - expected)[finite], np.abs(expected[finite])
    if dtype == "float32":
        return bool(apart.max() <= 1e-3 * size.max())
    return bool(np.sqrt(np.mean(apart**2)) <= 0.1 * np.sqrt(np.mean(size**2)))


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Lets a GPU multiply float32 as float32, not in TensorFloat-32's ten bits, for a while."""
    import tensorflow as tf

    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
