"""Checks a file of adversarial images with NumPy alone: the ball, the range, the labels.

    alp-verify audit/adversarial.npz
    alp-verify audit/adversarial.npz --data=my_images.npz
    python experiments/verify_adversarial.py FILE  # needs nothing of this project but this file

Independent of what made the file: it imports nothing of the library. Predictions are taken from the
file, since NumPy cannot run the model.
"""

from __future__ import annotations

import argparse
import sys
import zipfile

import numpy as np

EXIT_BAD = 1
EXIT_BAD_INPUT = 2
EXIT_NOT_JUDGED = 3
NAMES = (
    "images",
    "adversarial",
    "labels",
    "clean_predictions",
    "adversarial_predictions",
    "eps",
    "robust_accuracy",
)
ROUNDING = 1e-7  # of a float32 next to 1, which a bound may have been rounded by


def verify(file: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with a file's arrays, one line each; nothing is right.

    Args:
      file: images and adversarial, float [n, ...] in [0, 1]; labels and both predictions, int [n];
        eps on the [0, 1] scale; robust_accuracy, the share claimed to be left.
    """
    images, adversarial = file["images"], file["adversarial"]
    n = len(images)
    integers = [file[name] for name in ("labels", "clean_predictions", "adversarial_predictions")]
    if images.shape != adversarial.shape or n == 0:
        return [f"images of shape {images.shape} and adversarial of {adversarial.shape}"]
    if any(one.shape != (n,) or not np.issubdtype(one.dtype, np.integer) for one in integers):
        return [f"labels and predictions are not {n} integers each"]
    labels, clean, found = integers
    eps = float(file["eps"])
    wrong = []
    for name, pixels in (("images", images), ("adversarial", adversarial)):
        outside = ~np.isfinite(pixels) | (pixels < 0) | (pixels > 1)
        if outside.any():
            wrong.append(f"{_images(outside)} of {name} leave [0, 1]")
    distance = np.abs(adversarial.astype(np.float64) - images.astype(np.float64))
    far = ~(distance <= eps + ROUNDING)
    if far.any():
        wrong.append(
            f"{_images(far)} leave the ball: {np.nanmax(distance) * 255:.6g} of 255, and eps is "
            f"{eps * 255:.6g}"
        )
    if labels.min() < 0:
        wrong.append("a label is negative")
    unchanged = ~_of_images(distance > 0)
    if (unchanged & (clean != found)).any():
        wrong.append("an image that was not changed has two predictions")
    robust = float(((clean == labels) & (found == labels)).mean())
    if abs(robust - float(file["robust_accuracy"])) > 1e-9:
        wrong.append(
            f"{robust:.2%} are left by the predictions, {float(file['robust_accuracy']):.2%} are "
            "claimed"
        )
    return wrong


def same_data(file: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray) -> list[str]:
    """Whether the clean images and labels are the first of someone's own; uint8 or [0, 1]."""
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype == np.uint8 or images.max() > 1:
        images = images.astype(np.float64) / 255
    labels = labels.argmax(axis=1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.ravel()
    n = len(file["labels"])
    if len(labels) < n or images[:n].shape != file["images"].shape:
        return ["the images have another shape or number than the data"]
    wrong = []
    if np.abs(images[:n] - file["images"]).max() > 1e-6:
        wrong.append("the clean images are not those of the data")
    if (labels[:n] != file["labels"]).any():
        wrong.append("the labels are not those of the data")
    return wrong


def _of_images(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(pixels.reshape(len(pixels), -1).any(axis=1))


def _images(pixels: np.ndarray) -> str:
    return f"{int(_of_images(pixels).sum())} of {len(pixels)} images"


def _read(path: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        print(f"error: {path} is no such file ({error})", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


def _not_measured(path: str) -> str:
    """Why the audit behind a file attacked nothing, as the file says; "": it attacked."""
    with np.load(path, allow_pickle=False) as file:
        return str(file["not_measured"]) if "not_measured" in file.files else ""


def _read_data(path: str) -> tuple[np.ndarray, np.ndarray]:
    for pair in (("x_test", "y_test"), ("x", "y"), ("images", "labels"), ("X", "y")):
        with np.load(path, allow_pickle=False) as file:
            if set(pair) <= set(file.files):
                return file[pair[0]], file[pair[1]]
    print(f"error: {path} has no images and labels as x and y", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


def cli() -> None:
    """Console script: exit code 0 when all is right, 1 when not, 3 when nothing was measured."""
    parser = argparse.ArgumentParser(description="Checks a file of adversarial images.")
    parser.add_argument("file", help="adversarial.npz, as alp-audit --save_adversarial writes it")
    parser.add_argument("--data", help=".npz with x and y: the images that were to be attacked")
    arguments = parser.parse_args()
    file = _read(arguments.file, NAMES)
    if reason := _not_measured(arguments.file):
        print(f"not measured: {reason}; no share of the images is claimed to be left")
        sys.exit(EXIT_NOT_JUDGED)
    wrong = verify(file)
    if arguments.data and not wrong:
        wrong = same_data(file, *_read_data(arguments.data))
    for line in wrong:
        print(f"wrong: {line}")
    if not wrong:
        print(
            f"right: {len(file['labels'])} images within eps {float(file['eps']) * 255:g} of 255 "
            f"and within [0, 1]; {float(file['robust_accuracy']):.1%} are left"
        )
    sys.exit(EXIT_BAD if wrong else 0)


if __name__ == "__main__":
    cli()
