"""Compares two models by their logits on a few fixed images.

This tells functions apart that have the same weights and configuration: by a user's own layer, an
attribute that `call` reads, or state that was not copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

_SEED = 20180704
_LAST_PLACES = 1e-6  # of a float32: eight units in its last place


def probe_images(image_shape: tuple[int, ...]) -> np.ndarray:
    """Return fixed images, float32 [4, *image_shape] in [0, 1]: noise twice, dark noise, a ramp."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    noise = generator.random((3, *image_shape), dtype=np.float32)
    noise[2] *= np.float32(0.25)
    ramp = np.linspace(0, 1, int(np.prod(image_shape)), dtype=np.float32).reshape(image_shape)
    return np.concatenate([noise, ramp[None]])


def deciding(logits: np.ndarray) -> np.ndarray:
    """Return which logits [n, classes] can decide a prediction, bool of the same shape.

    Those of a class that is masked (by -1e9, say) cannot: they lie below the others by more than
    20, and by more than 10 times what these span. Two of each row are always left.
    """
    finite = np.where(np.isfinite(logits), logits, -np.inf).astype(np.float64)
    falling = -np.sort(-finite, axis=1)
    hopeless = np.full(len(logits), -np.inf)
    for k in range(logits.shape[1] - 1, 1, -1):
        with np.errstate(invalid="ignore"):  # -inf below -inf
            gap, span = falling[:, k - 1] - falling[:, k], falling[:, 0] - falling[:, k - 1]
        hopeless = np.where((gap > 20) & (gap > 10 * span), falling[:, k], hopeless)
    return np.isfinite(logits) & ((finite > hopeless[:, None]) | np.isneginf(hopeless)[:, None])


def deciding_spreads(logits: np.ndarray) -> np.ndarray:
    """Return the range of each row's `deciding` logits, float64 [n].

    What decides a prediction and every loss: an offset that all classes share does not count.
    """
    counts = deciding(logits)
    logits = np.asarray(logits, np.float64)
    high = np.where(counts, logits, -np.inf).max(axis=1)
    low = np.where(counts, logits, np.inf).min(axis=1)
    return np.where(counts.any(axis=1), high - low, 0.0)


def relative_change(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest change of a logit, relative to what decides its row's prediction.

    That is the row's range (`deciding_spreads`), or the rows' median where it is larger. What
    float32 cannot tell apart, a few units in a logit's last place, is no change.

    Args:
      found, expected: [n, classes]; where `expected` is not finite, nothing is compared.
    """
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    spreads = deciding_spreads(expected)
    scale = np.maximum(spreads, np.median(spreads))[:, None]
    finite = np.isfinite(expected)
    found, expected = np.where(finite, found, 0), np.where(finite, expected, 0)
    apart = np.maximum(np.abs(found - expected) - _LAST_PLACES * np.abs(expected), 0)
    return float(np.max(np.where(apart > 0, apart / np.maximum(scale, 1e-30), 0)))


def rounding_explains(found: np.ndarray, expected: np.ndarray, *, dtype: str = "float32") -> bool:
    """Return whether two arrays of logits are the same up to the rounding of a dtype.

    Differences are compared with the spread that decides the prediction, so that neither a masked
    class nor an offset that all classes share hides them. Float32: sums in another order differ by
    1e-5 of it in deep models; 1e-3 passes (`relative_change`). Bfloat16 keeps eight bits, and on a
    rugged model single logits differ by a tenth: the root mean square is compared, without the
    rows' means, 0.3 to 3% in our models and far more in a wrong copy; 10% pass. An array that is
    finite elsewhere than the other is another one.

    Args:
      found, expected: [n, classes], of one model, or of two that should be the same.
      dtype: the coarser of those they were computed in: float32, or any of bfloat16's.
    """
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(expected)
    if found.shape != expected.shape or np.any(np.isfinite(found) != finite):
        return False
    if not finite.any():
        return True
    if dtype == "float32":
        return relative_change(found, expected) <= 1e-3
    counts = deciding(expected)
    apart, size = _centred(found, counts) - _centred(expected, counts), _centred(expected, counts)
    return bool(np.sqrt(np.mean(apart**2)) <= 0.1 * np.sqrt(np.mean(size**2)))


def _centred(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the values that count, less the mean of those in their row."""
    kept = np.where(counts, values, 0.0)
    means = kept.sum(axis=1, keepdims=True) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return (kept - means)[counts]


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Make GPUs multiply float32 exactly inside the block, not in TensorFloat-32's ten bits."""
    import tensorflow as tf

    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
