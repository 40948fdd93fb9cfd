"""Conversion of arrays of images and labels in common formats into one, with their pixel scale.

Needs only NumPy. A scale that is ambiguous is never guessed: the error says how to resolve it.
"""

from __future__ import annotations

import numpy as np

from alp_repro.errors import InputError

# Resizing and rounding may overshoot by this share of the scale, one of 255 steps.
OVERSHOOT = 1 / 255
# Values up to here may be 7-bit numbers, percentages, 0 to 16 …, and not 0 to 255.
_UNCLEAR_TO = 128
# uint8 is 0 to 255, unless all values are so small that they may be masks or 4-bit numbers.
_DARKEST_BYTES = 16
_CLASSES_NAMED = 12


def unit_images(images: np.ndarray, *, where: str = "data") -> tuple[np.ndarray, tuple[str, ...]]:
    """Convert images to float32 [n, height, width, channels] in [0, 1]; also return notes.

    Args:
      images: with or without a channel axis. Floats in [0, 1] are unchanged; uint8, other integers
        and floats that are clearly 0 to 255 are divided by 255; booleans become 0 and 1. Floats
        outside the scale by at most one of 255 steps (`OVERSHOOT`) are clipped, with a note.
      where: the source, for messages.

    Raises:
      InputError: no images, or values whose scale is ambiguous.
    """
    notes = []
    if images.ndim == 3:
        images = images[..., None]
        notes.append("a channel axis was added")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"{where}: images of shape {images.shape}: expected [n, height, width] or [n, height, "
            "width, channels] with n > 0"
        )
    if images.dtype == bool:
        return images.astype(np.float32), (*notes, "boolean pixels became 0 and 1")
    floats = np.issubdtype(images.dtype, np.floating)
    if not (floats or np.issubdtype(images.dtype, np.integer)):
        raise InputError(f"{where}: images of type {images.dtype}: expected real numbers")
    low, high = float(images.min()), float(images.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{where}: expected finite pixels, got NaN or infinite ones")
    top = _top_of_scale(images.dtype, low, high, where)
    found = images.astype(np.float32)
    if top == 255:
        notes.append("pixels divided by 255")
        found /= np.float32(255)
    if low < 0 or high > top:
        beyond = int(np.count_nonzero((images < 0) | (images > top)))
        notes.append(
            f"{beyond} of {images.size} pixel values were outside [0, {top}], by at most "
            f"{max(-low, high - top):.2g}, and were clipped"
        )
        np.clip(found, 0, 1, out=found)
    return found, tuple(notes)


def range_advice(low: float, high: float) -> str:
    """Return advice for a message about floats in [low, high] that are not in [0, 1]."""
    if low >= -0.25 and high <= 1.25:  # bicubic resizing overshoots by less
        return "if resizing overshot, clip them to [0, 1]"
    if low < 0:
        return "leave the images unnormalized and give the model's pixel range instead"
    if high > 255:
        return "divide them by their largest possible value"
    return "divide them by their largest possible value, or give 0 to 255 as uint8"


def class_indices(
    labels: np.ndarray, count: int, *, where: str = "data"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Convert labels to int32 [n]; also return notes.

    Args:
      labels: integers (also as floats) [n] or [n, 1], or one-hot [n, classes].
      count: the number of images.
      where: the source, for messages.

    Raises:
      InputError: another number of labels, or values that are not class indices.
    """
    notes: tuple[str, ...] = ()
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and _one_hot(labels):
        labels, notes = labels.argmax(axis=1), ("labels were one-hot",)
    if labels.shape != (count,):
        raise InputError(
            f"{where}: labels of shape {labels.shape} for {count} images: expected one integer or "
            "one one-hot row for each"
        )
    real = np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating)
    if not real or not np.all(labels == np.floor(labels)):
        raise InputError(f"{where}: labels of type {labels.dtype}: expected integer class indices")
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise InputError(
            f"{where}: labels from {labels.min()} to {labels.max()}: expected class indices from 0 "
            "to 2^31 - 1"
        )
    return labels.astype(np.int32), notes


def balanced_indices(labels: np.ndarray, limit: int | None) -> np.ndarray:
    """Return the positions, int64, of `limit` images, spread evenly over the classes.

    The first of each class, then the second of each, and so on, since the first images of a file
    that is sorted by class would be of one class. If all are chosen, they keep their order.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_class], prepend=-1))
    sizes = np.diff(np.append(starts, len(labels)))
    turns = np.arange(len(labels)) - np.repeat(starts, sizes)
    return by_class[np.lexsort((labels[by_class], turns))][:limit]


def class_counts(labels: np.ndarray) -> str:
    """Return a note with the number of images in each class; a summary for many classes."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) == 1:
        return f"all {len(labels)} images are of one class, {classes[0]}"
    if len(classes) > _CLASSES_NAMED:
        return (
            f"{len(labels)} images of {len(classes)} classes from {classes[0]} to {classes[-1]}, "
            f"{counts.min()} to {counts.max()} of each"
        )
    each = ", ".join(f"{one}: {n}" for one, n in zip(classes, counts, strict=True))
    return f"{len(labels)} images; by class {each}"


def _top_of_scale(dtype: np.dtype, low: float, high: float, where: str) -> int:
    """Return the largest value of the pixels' scale, 1 or 255."""
    whole = np.issubdtype(dtype, np.integer)
    over = 0.0 if whole else OVERSHOOT
    if not whole and low >= -over and high <= 1 + over:
        return 1
    unclear = _DARKEST_BYTES if dtype == np.uint8 else _UNCLEAR_TO
    if low >= -255 * over and high <= 255 * (1 + over) and (high > unclear or (whole and not high)):
        return 255
    if not whole:
        advice = range_advice(low, high)
    elif high <= 1:
        advice = "if 1 is white, give them as floats or booleans; else multiply by 255"
    elif dtype == np.uint8:
        advice = "divide them by their largest possible value, to floats in [0, 1]"
    else:
        advice = range_advice(low, high)
    raise InputError(
        f"{where}: {dtype} pixels in [{low:.6g}, {high:.6g}]: expected floats in [0, 1], or "
        f"[0, 255] ({advice})"
    )


def _one_hot(labels: np.ndarray) -> bool:
    numbers = np.issubdtype(labels.dtype, np.number) or labels.dtype == bool
    return bool(numbers and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())
