"""Checks of the arguments of `train`, before anything is written."""

from __future__ import annotations

from typing import Any

import numpy as np

from alp_repro.data.images import Images
from alp_repro.data.specs import dataset_spec
from alp_repro.errors import InputError
from alp_repro.training.recipe import Recipe
from alp_repro.validation.arguments import checked_array, checked_instance


def checked_training_set(data: Any, recipe: Recipe) -> Images:
    """Return the training set after checking it against a recipe.

    Args:
      data: `Images`, uint8 or floats in [0, 1], of the data set's shape, with its classes.
      recipe: of the training.

    Raises:
      InputError: no images, images of another shape, type or range, or labels that do not match.
    """
    data = checked_instance(data, Images, name="data")
    spec = dataset_spec(recipe.dataset)
    images = checked_array(data.images, name="training images")
    labels = checked_array(data.labels, name="training labels")
    if images.shape[1:] != spec.image_shape or not len(images):
        raise InputError(
            f"training images of shape {images.shape}: expected (n, "
            f"{', '.join(map(str, spec.image_shape))}) with n > 0, as for {spec.name}"
        )
    floats = np.issubdtype(images.dtype, np.floating)
    if not floats and images.dtype != np.uint8:
        raise InputError(f"training images of type {images.dtype}: expected uint8 or floats")
    if floats and not (images.min() >= 0 and images.max() <= 1):  # also true for NaN
        raise InputError(
            f"training images in [{images.min():g}, {images.max():g}]: expected floats in [0, 1]"
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"training labels of shape {labels.shape} and type {labels.dtype}: expected "
            f"{len(images)} integers"
        )
    if labels.min() < 0 or labels.max() >= spec.num_classes:
        raise InputError(
            f"training labels in [{labels.min()}, {labels.max()}]: expected 0 to "
            f"{spec.num_classes - 1}, the classes of {spec.name}"
        )
    return data
