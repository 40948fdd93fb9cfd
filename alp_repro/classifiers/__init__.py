"""Conversion of any classifier into a Keras model from images in [0, 1] to logits."""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
    from alp_repro.classifiers.classifier import Classifier, as_classifier
    from alp_repro.classifiers.load import load_function_or_model
    from alp_repro.classifiers.pixels import (
        UNIT_PIXELS,
        PixelScale,
        common_pixel_scales,
        pixel_range,
        standardized_pixels,
    )

__all__ = [
    "UNIT_PIXELS",
    "Classifier",
    "PixelScale",
    "as_classifier",
    "common_pixel_scales",
    "load_function_or_model",
    "pixel_range",
    "standardized_pixels",
]

export(
    __name__,
    {
        "alp_repro.classifiers.classifier": (
            "Classifier",
            "as_classifier",
        ),
        "alp_repro.classifiers.load": ("load_function_or_model",),
        "alp_repro.classifiers.pixels": (
            "UNIT_PIXELS",
            "PixelScale",
            "common_pixel_scales",
            "pixel_range",
            "standardized_pixels",
        ),
    },
)
