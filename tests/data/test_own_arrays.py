"""The scale of pixels is told by rules and never guessed; samples are spread over the classes."""

from __future__ import annotations

import numpy as np
import pytest

from alp_repro.data.own_arrays import (
    OVERSHOOT,
    balanced_indices,
    class_counts,
    class_indices,
    unit_images,
)
from alp_repro.errors import InputError

BYTES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
BYTES[0, 0, 0, 0], BYTES[0, 0, 0, 1] = 0, 255
UNIT = BYTES / 255


def with_pixel(images: np.ndarray, value: float) -> np.ndarray:
    changed = images.copy()
    changed[2, 1, 1, 1] = value
    return changed


@pytest.mark.parametrize(
    ("images", "value"),
    [
        (UNIT, 1 + 1e-9),
        (UNIT.astype(np.float32), 1.0004),
        (UNIT, -0.002),
        (UNIT, 1 + OVERSHOOT),
        (BYTES.astype(np.float32), 255.6),
        (BYTES.astype(np.float64), -0.9),
    ],
)
def test_an_overshoot_is_clipped_and_told(images: np.ndarray, value: float) -> None:
    found, notes = unit_images(with_pixel(images, value))
    right = UNIT.copy()
    right[2, 1, 1, 1] = float(value > 0)
    np.testing.assert_allclose(found, right, atol=1e-6)
    assert found.min() >= 0
    assert found.max() <= 1
    assert any("1 of 360 pixel values" in note and "clipped" in note for note in notes)


@pytest.mark.parametrize(
    ("images", "what"),
    [
        (with_pixel(UNIT, 1.01), "clip them"),
        (UNIT * 1.1, "clip them"),
        (UNIT * 2, "largest possible value"),
        (UNIT * 16, "largest possible value"),
        (UNIT * 100, "as uint8"),
        (BYTES * 1.02, "largest possible value"),
        (UNIT * 2 - 1, "pixel range"),
        (UNIT * 65535, "largest possible value"),
        ((BYTES > 127).astype(np.int64), "floats or booleans"),
        ((BYTES > 127).astype(np.uint8), "floats or booleans"),
        ((BYTES > 127) * 2, "as uint8"),
        ((BYTES > 127).astype(np.uint8) * np.uint8(2), "to floats in"),
        (BYTES.astype(np.int16) - 1, "pixel range"),
        (UNIT.astype(complex), "real numbers"),
    ],
)
def test_a_scale_in_doubt_is_refused_with_what_is_right(images: np.ndarray, what: str) -> None:
    with pytest.raises(InputError, match=what):
        unit_images(images)


def test_yes_and_no_are_0_and_1() -> None:
    found, notes = unit_images(BYTES > 127)
    np.testing.assert_array_equal(found, (BYTES > 127).astype(np.float32))
    assert any("boolean" in note for note in notes)


def test_a_sample_of_a_sorted_file_has_every_class() -> None:
    labels = np.repeat([0, 3, 7], [50, 30, 2])
    found = labels[balanced_indices(labels, 12)]
    assert np.bincount(found, minlength=8)[[0, 3, 7]].tolist() == [5, 5, 2]
    assert len(set(balanced_indices(labels, 40).tolist())) == 40
    np.testing.assert_array_equal(balanced_indices(labels, None), np.arange(82))
    np.testing.assert_array_equal(balanced_indices(labels, 82), np.arange(82))


def test_class_counts() -> None:
    assert "1: 2, 4: 3" in class_counts(np.array([4, 1, 4, 4, 1]))
    assert "one class, 7" in class_counts(np.full(9, 7))
    many = class_counts(np.repeat(np.arange(20), 2)[1:])
    assert "20 classes" in many
    assert "1 to 2" in many


@pytest.mark.parametrize("labels", [np.array([0, 2**40]), np.array([1j, 0]), np.array([0, np.nan])])
def test_labels_that_are_no_classes(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="class indices"):
        class_indices(labels, 2)
