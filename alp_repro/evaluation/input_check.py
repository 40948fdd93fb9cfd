"""Images, labels and numbers as a user gives them, checked and made what the engine takes.

What does not pass is an `InputError` of one line.
"""

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
from alp_repro.validation.decoding import from_plain
from alp_repro.validation.plain_numbers import whole_number

MOST_ITEMS = 1_000_000  # in a batch: a bound that no honest call reaches


def checked_images(images: Any) -> np.ndarray:
    """Images as float32 in [0, 1], [n, height, width, channels]; the array itself if it is that.

    Args:
      images: uint8 (0-255), or floats in [0, 1].

    Raises:
      InputError: another shape, type or range; an image with values that are not finite.
    """
    images = checked_array(images, name="images")
    if images.ndim != 4 or images.size == 0:
        raise InputError(
            f"images of shape {images.shape}: [n, height, width, channels] with n > 0 is needed"
        )
    if images.dtype == np.uint8:
        return unit_scale(images)
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images of type {images.dtype}: uint8 (0-255) or floats in [0, 1]")
    with np.errstate(over="ignore"):  # too large for float32: told below
        images = np.ascontiguousarray(images, np.float32)
    least, most = images.min(), images.max()
    if not (np.isfinite(least) and np.isfinite(most)):
        bad = int(np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))[0])
        raise InputError(f"image {bad} of {len(images)} has values that are not finite in float32")
    if least < 0 or most > 1:
        raise InputError(
            f"images in [{least:.6g}, {most:.6g}]: floats in [0, 1] or uint8 are needed "
            f"({range_advice(float(least), float(most))})"
        )
    return images


def checked_labels(labels: Any, num_images: int) -> np.ndarray:
    """Labels as int32 [n]; whether the model has these classes is `check_classes`' question.

    Raises:
      InputError: another shape or type.
    """
    labels = checked_array(labels, name="labels")
    if labels.shape != (num_images,) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels of shape {labels.shape} and type {labels.dtype}: {num_images} integers needed"
        )
    if labels.min() < -(2**31) or labels.max() >= 2**31:
        raise InputError(f"labels in [{labels.min()}, {labels.max()}]: these are no classes")
    return labels.astype(np.int32)


def check_classes(labels: np.ndarray, classes: int) -> None:
    """InputError when the model has no such classes."""
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels in [{labels.min()}, {labels.max()}]: the model has classes 0 to {classes - 1}"
        )


def checked_indices(indices: Any, num_images: int) -> np.ndarray:
    """Places of images in their data set as int64 [n]; None: 0 to n - 1.

    Raises:
      InputError: another shape, or no whole numbers of 0 or more.
    """
    if indices is None:
        return np.arange(num_images)
    indices = checked_array(indices, name="indices")
    if indices.shape != (num_images,) or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(
            f"indices of shape {indices.shape} and type {indices.dtype}: one whole number for each "
            "image is needed"
        )
    if indices.min() < 0 or indices.max() >= 2**63:
        raise InputError(f"indices in [{indices.min()}, {indices.max()}]: these are no places")
    return indices.astype(np.int64)


def checked_seed(seed: Any) -> int:
    """A seed as plain Python has it; InputError when it is none."""
    return whole_number(seed, name="seed", low=0, high=2**31 - 1)


def checked_batch_size(batch_size: Any) -> int:
    """A batch size as plain Python has it; InputError when it is none."""
    return whole_number(batch_size, name="batch_size", low=1, high=MOST_ITEMS)


def checked_folder(folder: str | Path) -> Path:
    """A folder's path, with `~` for the home folder.

    Raises:
      InputError: there is no such user, or it is no path.
    """
    if not isinstance(folder, (str, os.PathLike)) or "\0" in os.fspath(folder):
        raise InputError(f"folder {folder!r}: a path is needed")
    return files.expanded(folder)


def checked_details(details: Any) -> dict[str, Any]:
    """Further provenance as JSON gives it back; None: none.

    Raises:
      InputError: it holds what JSON has not; it could not be saved with the result.
    """
    return {} if details is None else from_plain(details, dict[str, Any], source="details")


def check_is_keras(model: Any) -> None:
    """InputError unless it is a Keras 3 model; says so where it is one of Keras 2."""
    import keras

    if isinstance(model, keras.Model):
        return
    if any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__):
        raise InputError(
            f"the model is a tf_keras model (Keras 2, {type(model).__name__}): a model of Keras 3 "
            "is needed; build it with `keras` and take the weights over with get_weights and "
            "set_weights"
        )
    raise InputError(f"the model is a {type(model).__name__}: a keras.Model is needed")
