"""The flags for any classifier and any images, and their conversion to the library's values."""

from __future__ import annotations

from absl import flags

from alp_repro.classifiers import UNIT_PIXELS, PixelScale, pixel_range, standardized_pixels
from alp_repro.data.own_images import OwnImages, read_own_images
from alp_repro.errors import InputError

FLAGS = flags.FLAGS


def define_classifier_flags(values: flags.FlagValues = FLAGS) -> None:
    """Define the flags for the classifier and the images."""

    def text(name: str, help_text: str) -> None:
        flags.DEFINE_string(name, None, help_text, flag_values=values)

    text(
        "model",
        "The classifier: a .keras or .h5 file, a SavedModel folder, or module:function (also "
        "file.py:function), where the function maps images to logits, or returns a model or such "
        "a function.",
    )
    text(
        "data",
        "The images: an .npz file with images and labels, a folder with one subfolder for each "
        "class, or the name of a TFDS data set.",
    )
    flags.DEFINE_list(
        "class_names",
        [],
        "The subfolders of --data in the order of their labels, as in cat,dog,eel; or sorted (by "
        "name, as Keras and torchvision do), or numbered (the names are the labels). Default: "
        "numbered if all names are numbers.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "pixel_range",
        [],
        "LOW,HIGH of the pixels that the model expects, as in 0,255 or -1,1. Default: 0,1.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "pixel_mean",
        [],
        "The model expects (pixel - mean) / deviation of pixels in [0, 1]: the mean, one number "
        "or one for each channel.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "pixel_deviation",
        [],
        "The deviation; see --pixel_mean.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "trust_code",
        False,
        "Allow code in model files to run (Lambda layers, a SavedModel's file operations).",
        flag_values=values,
    )


def pixels(values: flags.FlagValues) -> PixelScale:
    """Return the pixel scale of --pixel_range, or of --pixel_mean and --pixel_deviation.

    Raises:
      InputError: both are given, or their values are not valid.
    """
    low_high = _numbers("pixel_range", values.pixel_range)
    mean = _numbers("pixel_mean", values.pixel_mean)
    deviation = _numbers("pixel_deviation", values.pixel_deviation)
    if low_high and (mean or deviation):
        raise InputError(
            "expected either --pixel_range, or --pixel_mean and --pixel_deviation, not both"
        )
    if low_high:
        if len(low_high) != 2:
            raise InputError(
                f"--pixel_range={','.join(values.pixel_range)}: expected LOW,HIGH as in 0,255"
            )
        return pixel_range(*low_high)
    if mean or deviation:
        return standardized_pixels(mean, deviation)
    return UNIT_PIXELS


def own_images(values: flags.FlagValues) -> OwnImages:
    """Read the images of --data, at most --num_images of them.

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
        raise InputError(f"--{name}={','.join(texts)}: expected numbers") from None
