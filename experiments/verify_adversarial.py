"""Checks a file of adversarial images with NumPy alone: the ball, the range, the labels.

    alp-verify audit/adversarial.npz
    alp-verify audit/adversarial.npz --data=my_images.npz
    python experiments/verify_adversarial.py FILE  # needs only this file of the project

A file's claims are checked independently of the code that made it: the library is imported only for
--data, which is read like that of alp-audit. Predictions are taken from the file, since NumPy
cannot run the model.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import zipfile
from collections.abc import Iterator
from typing import NoReturn

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
ROUNDING = 1e-7  # of a float32 close to 1: a bound may have been rounded by as much


def unfit(file: dict[str, np.ndarray]) -> str:
    """Return why a file's arrays cannot be checked, and what is expected; "" if they can.

    Args:
      file: see `verify`.
    """
    images, adversarial = file["images"], file["adversarial"]
    for name in ("images", "adversarial"):
        if not np.issubdtype(file[name].dtype, np.floating):
            return f"{name} of type {file[name].dtype}: expected floats in [0, 1]"
    n = len(images) if images.ndim else 0  # a single number has no images
    if images.shape != adversarial.shape or n == 0 or images.size == 0:
        return (
            f"images of shape {images.shape} and adversarial of shape {adversarial.shape}: "
            "expected the same shape [n, ...] with n > 0"
        )
    for name in ("labels", "clean_predictions", "adversarial_predictions"):
        if file[name].shape != (n,) or not np.issubdtype(file[name].dtype, np.integer):
            return (
                f"{name} of shape {file[name].shape} and type {file[name].dtype}: expected {n} "
                "integers"
            )
    for name in ("eps", "robust_accuracy"):
        number = file[name]
        if number.shape or number.dtype.kind not in "fiu":
            return f"{name} of shape {number.shape} and type {number.dtype}: expected one number"
    if not 0 < float(file["eps"]) <= 1:
        return f"eps {float(file['eps']):g}: expected a number in (0, 1], as 0.03137 for 8/255"
    return ""


def verify(file: dict[str, np.ndarray]) -> list[str]:
    """Return the errors in a file's arrays, one line each; none if it is valid.

    Args:
      file: images and adversarial, float [n, ...] in [0, 1]; labels and both predictions, int [n];
        eps on the [0, 1] scale; robust_accuracy, the claimed share of images.
    """
    if reason := unfit(file):
        return [reason]
    images, adversarial = file["images"], file["adversarial"]
    labels, clean = file["labels"], file["clean_predictions"]
    found, eps = file["adversarial_predictions"], float(file["eps"])
    wrong = []
    for name, pixels in (("images", images), ("adversarial", adversarial)):
        outside = ~np.isfinite(pixels) | (pixels < 0) | (pixels > 1)
        if outside.any():
            wrong.append(f"{_images(outside)} of {name} have pixels outside [0, 1]")
    with np.errstate(invalid="ignore"):  # of infinities, which are reported above
        distance = np.abs(adversarial.astype(np.float64) - images.astype(np.float64))
    far = ~(distance <= eps + ROUNDING)
    if far.any():
        farthest = np.nan_to_num(distance, nan=np.inf).max()
        wrong.append(
            f"{_images(far)} are outside the ball: distance up to {farthest * 255:.6g} of 255, "
            f"but eps is {eps * 255:.6g}"
        )
    if labels.min() < 0:
        wrong.append("a label is negative")
    unchanged = ~_of_images(distance > 0)
    if (unchanged & (clean != found)).any():
        wrong.append("an unchanged image has two different predictions")
    robust = float(((clean == labels) & (found == labels)).mean())
    if not abs(robust - float(file["robust_accuracy"])) <= 1e-9:
        wrong.append(
            f"the predictions give a robust accuracy of {robust:.2%}, but "
            f"{float(file['robust_accuracy']):.2%} is claimed"
        )
    return wrong


def same_data(file: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray) -> list[str]:
    """Return how the clean images and labels differ from the given ones.

    Args:
      file: see `verify`.
      images, labels: in any form that the audit accepts; if there are more than in the file, the
        first ones, or those that the audit draws, are compared.

    Raises:
      InputError: images or labels that the audit does not accept.
    """
    from alp_repro.data.own_arrays import balanced_indices, class_indices, unit_images

    images, _ = unit_images(images)
    labels, _ = class_indices(labels, len(images))
    n = len(file["labels"])
    if len(labels) < n or images.shape[1:] != file["images"].shape[1:]:
        return [
            f"the file has {n} images of shape {file['images'].shape[1:]}, but the data has "
            f"{len(labels)} of shape {images.shape[1:]}"
        ]
    first = _differences(file, images[:n], labels[:n])
    drawn = balanced_indices(labels, n)
    return first and _differences(file, images[drawn], labels[drawn])


def _differences(file: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray) -> list[str]:
    wrong = []
    if not np.abs(images - file["images"]).max() <= 1e-6:
        wrong.append("the clean images differ from those of the data")
    if (labels != file["labels"]).any():
        wrong.append("the labels differ from those of the data")
    return wrong


def _of_images(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(pixels.reshape(len(pixels), -1).any(axis=1))


def _images(pixels: np.ndarray) -> str:
    return f"{int(_of_images(pixels).sum())} of {len(pixels)} images"


_REASON = "not_measured"


def _read(path: str) -> dict[str, np.ndarray]:
    """Read the arrays of a file, and check that they can be verified.

    Raises:
      SystemExit: there is no such file; reported in one line.
    """
    right = f"expected an .npz file of alp-audit --save_adversarial, with {', '.join(NAMES)}"
    if not os.path.isfile(path):
        _refuse(f"{path} {'is a folder' if os.path.isdir(path) else 'does not exist'}: {right}")
    try:
        if not zipfile.is_zipfile(path):
            _refuse(f"{path} is not an .npz file: {right}")
        # NumPy leaves a damaged file open that it has opened itself.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as content:
            missing = [name for name in NAMES if name not in content.files]
            if missing:
                _refuse(f"{path} has no {', '.join(missing)}: {right}")
            file = {name: content[name] for name in (*NAMES, _REASON) if name in content.files}
    except Exception as error:  # zipfile and NumPy raise errors of many kinds for damaged files
        _refuse(f"{path} could not be read ({' '.join(str(error).split())[:200]}): {right}")
    if reason := unfit(file):
        _refuse(f"{path}: {reason}")
    return file


def _differs(file: dict[str, np.ndarray], data: str, class_names: str | None) -> list[str]:
    """Return how the clean images differ from those of --data.

    Raises:
      SystemExit: there is no such data; reported in one line.
    """
    try:
        with _native_notes_hidden():
            from alp_repro.data.own_images import read_own_images
            from alp_repro.errors import InputError
    except ImportError as error:
        _refuse(f"--data requires the library alp_repro ({error})")
    order = class_names.split(",") if class_names else None
    try:
        wrong = []
        # First the images that alp-audit draws, then all of them, as the file may have the first.
        for limit in (len(file["labels"]), None):
            found = read_own_images(data, limit=limit, class_names=order)
            wrong = same_data(file, found.images, found.labels)
            if not wrong:
                break
    except InputError as error:
        _refuse(f"--data: {error}")
    return wrong


@contextlib.contextmanager
def _native_notes_hidden() -> Iterator[None]:
    """Discard what TensorFlow prints on import, as the package does when it is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


def cli() -> None:
    """Run the console script; exit codes: 0: valid, 1: not valid, 2: bad input, 3: not measured."""
    parser = argparse.ArgumentParser(description="Checks a file of adversarial images.")
    parser.add_argument("file", help="an adversarial.npz, written by alp-audit --save_adversarial")
    parser.add_argument("--data", help="the clean images to compare with, as in alp-audit --data")
    parser.add_argument("--class_names", help="the order of --data's subfolders, as in alp-audit")
    arguments = parser.parse_args()
    file = _read(arguments.file)
    if reason := str(file.pop(_REASON, "")):  # why the audit attacked nothing
        print(f"not measured: {reason}; no robust accuracy is claimed")
        sys.exit(EXIT_NOT_JUDGED)
    wrong = verify(file)
    if arguments.data and not wrong:
        wrong = _differs(file, arguments.data, arguments.class_names)
    for line in wrong:
        print(f"invalid: {line}")
    if not wrong:
        print(
            f"valid: {len(file['labels'])} images within eps {float(file['eps']) * 255:g} of 255 "
            f"and within [0, 1]; robust accuracy {float(file['robust_accuracy']):.1%}"
        )
    sys.exit(EXIT_BAD if wrong else 0)


if __name__ == "__main__":
    cli()
