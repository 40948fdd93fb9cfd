"""Checks of images, labels and numbers that a user gives; they raise `InputError` in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from alp_repro import files
from alp_repro.data.images import unit_scale
from alp_repro.data.own_arrays import range_advice
from alp_repro.errors import InputError
from alp_repro.validation.arguments import checked_array
from alp_repro.validation.plain_numbers import whole_number

_MAX_ITEMS = 1_000_000  # in a batch: far more than any real call needs


def checked_images(images: Any) -> np.ndarray:
    """Return images as float32 in [0, 1], [n, height, width, channels], copied only if needed.

    Args:
      images: uint8 (0-255), or floats in [0, 1].

    Raises:
      InputError: the wrong shape, type or range, or values that are not finite.
    """
    images = checked_array(images, name="images")
    if images.ndim != 4 or images.size == 0:
        raise InputError(
            f"images of shape {images.shape}: expected [n, height, width, channels] with n > 0"
        )
    if images.dtype == np.uint8:
        return unit_scale(images)
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(
            f"images of type {images.dtype}: expected uint8 (0-255) or floats in [0, 1]"
        )
    with np.errstate(over="ignore"):  # values too large for float32 are refused below
        images = np.ascontiguousarray(images, np.float32)
    least, most = images.min(), images.max()
    if not (np.isfinite(least) and np.isfinite(most)):
        bad = int(np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))[0])
        raise InputError(f"image {bad} of {len(images)} has values that are not finite in float32")
    if least < 0 or most > 1:
        raise InputError(
            f"images in [{least:.6g}, {most:.6g}]: expected floats in [0, 1], or uint8 "
            f"({range_advice(float(least), float(most))})"
        )
    return images


def checked_labels(labels: Any, num_images: int) -> np.ndarray:
    """Return labels as int32 [n]; `check_classes` compares them with the model's classes.

    Raises:
      InputError: the wrong shape or type.
    """
    labels = checked_array(labels, name="labels")
    if labels.shape != (num_images,) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels of shape {labels.shape} and type {labels.dtype}: expected {num_images} "
            "integers"
        )
    if labels.min() < -(2**31) or labels.max() >= 2**31:
        raise InputError(f"labels in [{labels.min()}, {labels.max()}]: not valid class indices")
    return labels.astype(np.int32)


def check_classes(labels: np.ndarray, classes: int) -> None:
    """Raise InputError if the model does not have all classes of the labels."""
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels in [{labels.min()}, {labels.max()}]: the model has classes 0 to {classes - 1}"
        )


def checked_indices(indices: Any, num_images: int) -> np.ndarray:
    """Return positions of images in their data set as int64 [n]; None: 0 to n - 1.

    Raises:
      InputError: the wrong shape, or other values than integers of 0 or more.
    """
    if indices is None:
        return np.arange(num_images)
    indices = checked_array(indices, name="indices")
    if indices.shape != (num_images,) or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(
            f"indices of shape {indices.shape} and type {indices.dtype}: expected {num_images} "
            "integers, one for each image"
        )
    if indices.min() < 0 or indices.max() >= 2**63:
        raise InputError(
            f"indices in [{indices.min()}, {indices.max()}]: expected integers from 0 to 2^63 - 1"
        )
    return indices.astype(np.int64)


def checked_batch_size(batch_size: Any) -> int:
    """Return a batch size as a Python int; InputError if it is not valid."""
    return whole_number(batch_size, name="batch_size", low=1, high=_MAX_ITEMS)


def checked_folder(folder: str | Path) -> Path:
    """Return a folder's path, with `~` expanded to the home folder.

    Raises:
      InputError: not a path, or `~user` of an unknown user.
    """
    if not isinstance(folder, (str, os.PathLike)) or "\0" in os.fspath(folder):
        raise InputError(f"folder {folder!r}: expected a path")
    return files.expanded(folder)


def check_is_keras(model: Any) -> None:
    """Raise InputError unless it is a Keras 3 model; the message tells Keras 2 models apart."""
    import keras

    if isinstance(model, keras.Model):
        return
    if any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__):
        raise InputError(
            f"the model is a tf_keras model (Keras 2, {type(model).__name__}): expected a model of "
            "Keras 3; build it with `keras` and copy the weights with get_weights and set_weights"
        )
    raise InputError(f"the model is a {type(model).__name__}: expected a keras.Model")
