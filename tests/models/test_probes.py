"""What is rounding of logits and what is another function, also where logits are far from zero."""

from __future__ import annotations

import numpy as np
import pytest

from alp_repro.models.probes import deciding, deciding_spreads, relative_change, rounding_explains

LOGITS = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


def masked(logits: np.ndarray) -> np.ndarray:
    return np.concatenate([logits, np.full((len(logits), 2), -1e9, np.float32)], axis=1)


def shifted(logits: np.ndarray) -> np.ndarray:
    return logits + np.float32(1e5)


@pytest.mark.parametrize("end", [lambda z: z, masked, shifted], ids=["plain", "masked", "shifted"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neither_a_masked_class_nor_an_offset_hides_another_function(end, dtype: str) -> None:
    noise = np.random.default_rng(1).normal(size=LOGITS.shape).astype(np.float32)
    assert rounding_explains(end(LOGITS * np.float32(1 + 1e-6)), end(LOGITS), dtype=dtype)
    assert not rounding_explains(end(LOGITS + noise), end(LOGITS), dtype=dtype)
    assert relative_change(end(LOGITS + noise), end(LOGITS)) > 0.1


def test_what_decides() -> None:
    np.testing.assert_allclose(deciding_spreads(masked(LOGITS)), np.ptp(LOGITS, axis=1))
    np.testing.assert_allclose(deciding_spreads(shifted(LOGITS)), np.ptp(LOGITS, axis=1), atol=0.02)
    assert deciding(100 * LOGITS).all()  # large logits are no masks
    with_infinity = np.concatenate([LOGITS, np.full((4, 1), -np.inf, np.float32)], axis=1)
    np.testing.assert_allclose(deciding_spreads(with_infinity), np.ptp(LOGITS, axis=1))
    assert rounding_explains(with_infinity, with_infinity)
    assert rounding_explains(np.zeros((2, 3)), np.zeros((2, 3)))
    assert not rounding_explains(np.full((2, 3), 1e-3), np.zeros((2, 3)))


def test_one_image_of_large_logits_does_not_hide_the_others() -> None:
    outlier = LOGITS.copy()
    outlier[0] *= 1e4
    changed = outlier.copy()
    changed[1:] += np.float32(0.1) * LOGITS[:3]
    assert not rounding_explains(changed, outlier)
