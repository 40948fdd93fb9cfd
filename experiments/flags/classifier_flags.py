"""The flags that name any classifier and any images, and how they become the library's values."""

from __future__ import annotations

from absl import flags

from alp_repro.classifiers import UNIT_PIXELS, PixelScale, pixel_range, standardized_pixels
from alp_repro.data.own_images import OwnImages, read_own_images
from alp_repro.errors import InputError

FLAGS = flags.FLAGS


def define_classifier_flags(values: flags.FlagValues = FLAGS) -> None:
    """Which classifier and which images."""

    def text(name: str, what: str) -> None:
        flags.DEFINE_string(name, None, what, flag_values=values)

    text(
        "model",
        "A .keras or .h5 file, a SavedModel folder, or module:function (also file.py:function) "
        "that is, or returns, a model or a function from images to logits.",
    )
    text("data", "An .npz file with images and labels, a folder by class, or a TFDS name.")
    flags.DEFINE_list(
        "class_names",
        [],
        "The folders of --data in the order of the labels: cat,dog,eel; or one word: sorted (by "
        "name, as Keras and torchvision do), numbered (names are labels). Default: numbered where "
        "all are numbers.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "pixel_range",
        [],
        "LOW,HIGH of the pixels that the model wants: 0,255 or -1,1. Default: 0,1.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "pixel_mean",
        [],
        "The model wants (pixel - mean) / deviation, on the [0, 1] scale: one "
        "number or one a channel.",
        flag_values=values,
    )
    flags.DEFINE_list("pixel_deviation", [], "See --pixel_mean.", flag_values=values)
    flags.DEFINE_boolean(
        "trust_code",
        False,
        "Run code that a model file carries (Lambda layers, a SavedModel's file operations).",
        flag_values=values,
    )


def pixels(values: flags.FlagValues) -> PixelScale:
    """What --pixel_range, or --pixel_mean and --pixel_deviation, say.

    Raises:
      InputError: both, no numbers, or numbers that cannot be.
    """
    low_high = _numbers("pixel_range", values.pixel_range)
    mean = _numbers("pixel_mean", values.pixel_mean)
    deviation = _numbers("pixel_deviation", values.pixel_deviation)
    if low_high and (mean or deviation):
        raise InputError("--pixel_range, or --pixel_mean and --pixel_deviation, not all of them")
    if low_high:
        if len(low_high) != 2:
            raise InputError(f"--pixel_range={','.join(values.pixel_range)}: LOW,HIGH as in 0,255")
        return pixel_range(*low_high)
    if mean or deviation:
        return standardized_pixels(mean, deviation)
    return UNIT_PIXELS


def own_images(values: flags.FlagValues) -> OwnImages:
    """The images of --data, as many as --num_images says.

    Raises:
      InputError: see `read_own_images`.
    """
    limit = None if values.num_images == "all" else values.num_images
    return read_own_images(
        values.data,
        limit=limit,
        data_dir=values.data_dir,
        class_names=values.class_names,
    )


def _numbers(name: str, texts: list[str]) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise InputError(f"--{name}={','.join(texts)}: numbers are needed") from None
