"""Reading images from a folder with one subfolder per class."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alp_repro.data.own_arrays import balanced_indices
from alp_repro.errors import InputError

SORTED, NUMBERED = "sorted", "numbered"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif"}
# Folders that archivers and network drives add.
_FOREIGN = {"__MACOSX", "@eaDir"}
_NAMED = 12


@dataclasses.dataclass(frozen=True)
class FolderImages:
    """The images of a folder, uint8 [n, height, width, channels], their labels [n], and notes."""

    images: np.ndarray
    labels: np.ndarray
    notes: tuple[str, ...]


def read_folder(
    path: Path, *, limit: int | None = None, class_names: Sequence[str] | str | None = None
) -> FolderImages:
    """Read the images of a folder with one subfolder per class.

    Args:
      path: the folder. Hidden subfolders, those that archivers add, and those without images get no
        label.
      limit: the number of images, spread evenly over the classes; None: all.
      class_names: the subfolders' names in the order of the labels; "sorted": by name, as in Keras
        and torchvision; "numbered": the names are the labels; None: numbered if all names are
        numbers, else sorted.

    Raises:
      InputError: no images, images of different shapes, or class names that do not match.
    """
    files, notes = _files_by_folder(path)
    if len(files) < 2 and not class_names:
        raise InputError(
            f"data {path} has {len(files)} folders of images ({', '.join(sorted(_SUFFIXES))}): "
            f"expected one for each of two or more classes{_deeper(path)}"
        )
    labels, note = folder_labels(sorted(files), class_names, where=f"data {path}")
    every = [(file, labels[name]) for name in sorted(files) for file in files[name]]
    if not every:
        raise InputError(f"data {path} has no images ({', '.join(sorted(_SUFFIXES))})")
    numbers = np.array([label for _, label in every])
    chosen = balanced_indices(numbers, limit)
    images, more = _one_shape([every[i][0] for i in chosen])
    return FolderImages(images, numbers[chosen], (note, *notes, *more))


def folder_labels(
    names: Sequence[str], class_names: Sequence[str] | str | None, *, where: str
) -> tuple[dict[str, int], str]:
    """Return the label of each subfolder and a note that lists them; see `read_folder`.

    Raises:
      InputError: a name is given twice or missing, or the names are not numbers as requested.
    """
    order = [class_names] if isinstance(class_names, str) else list(class_names or ())
    by_name = {name: place for place, name in enumerate(sorted(names))}
    by_value = {name: int(name) for name in names if name.isascii() and name.isdecimal()}
    numbered = len(by_value) == len(names) and len(set(by_value.values())) == len(names)
    if order == [NUMBERED] and not numbered:
        raise InputError(
            f"{where}: class_names numbered: expected folder names that are different numbers, got "
            f"{_shortened(sorted(names))}"
        )
    if order == [SORTED] or not (order or numbered):
        found, why = by_name, "by name"
    elif order in ([NUMBERED], []):
        found, why = by_value, "their names, which are numbers"
    else:
        twice = sorted({name for name in order if order.count(name) > 1})
        missing = sorted(set(names) - set(order))
        if twice or missing:
            what = f"{_shortened(twice)} is given twice" if twice else f"no {_shortened(missing)}"
            raise InputError(
                f"{where}: class_names: {what}; expected each folder's name once, in the order of "
                f"the labels ({_shortened(sorted(names))}), or {SORTED} or {NUMBERED}"
            )
        found, why = {name: order.index(name) for name in names}, "in the given order"
    pairs = [f"{found[name]} {name}" for name in sorted(names, key=lambda name: found[name])]
    note = f"labels of the folders, {why}: {_shortened(pairs)}"
    other = next((name for name in sorted(names) if found[name] != by_name[name]), None)
    if not order and other is not None:
        note += (
            f" (Keras and torchvision sort by name, so that {other} is label {by_name[other]}: use "
            f"class_names={SORTED} for that)"
        )
    return found, note


def _files_by_folder(path: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Return the image files of each class folder, and notes on what was left out."""
    found: dict[str, list[Path]] = {}
    left_out, others = [], []
    try:
        for folder in sorted(p for p in path.iterdir() if p.is_dir()):
            # macOS adds a hidden file for each file of an archive.
            files = [f for f in sorted(folder.iterdir()) if f.is_file() and f.name[0] != "."]
            images = [f for f in files if f.suffix.lower() in _SUFFIXES]
            if folder.name[0] == "." or folder.name in _FOREIGN or not images:
                left_out.append(folder.name)
                continue
            found[folder.name] = images
            others += [f for f in files if f.suffix.lower() not in _SUFFIXES]
    except OSError as error:
        raise InputError(f"data {path} cannot be read ({error.strerror or error})") from error
    notes = []
    if left_out:
        notes.append(f"folders that are not classes were left out: {_shortened(left_out)}")
    if others:
        kinds = sorted({f.suffix.lower() or f.name for f in others})
        notes.append(f"{len(others)} files of other types were left out: {_shortened(kinds)}")
    return found, notes


def _deeper(path: Path) -> str:
    """Return a hint if the class folders are one level further down."""
    for file in path.glob("*/*/*"):
        if file.suffix.lower() in _SUFFIXES and file.parent.parent.name not in _FOREIGN:
            return f"; did you mean {file.parent.parent}?"
    return ""


def _one_shape(files: list[Path]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode images of one shape; grayscale ones among RGB become RGB, with a note."""
    images = [_decoded(file) for file in files]
    notes = []
    channels = [image.shape[-1] for image in images]
    if set(channels) == {1, 3}:
        images = [np.repeat(i, 3, axis=-1) if i.shape[-1] == 1 else i for i in images]
        notes.append(f"{channels.count(1)} of {len(images)} images were gray and became RGB")
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"{file} is an image of shape {image.shape} and {files[0]} of {images[0].shape}: "
                "expected the same shape for all"
            )
    return np.stack(images), tuple(notes)


def _decoded(file: Path) -> np.ndarray:
    import tensorflow as tf

    try:
        return tf.io.decode_image(file.read_bytes(), expand_animations=False).numpy()
    except (OSError, tf.errors.OpError) as error:
        message = str(error).splitlines()[0][:120]
        raise InputError(f"data {file} could not be decoded as an image ({message})") from error


def _shortened(words: Sequence[str]) -> str:
    """Join words; of a long list only the beginning and the end."""
    if len(words) <= _NAMED:
        return ", ".join(words)
    return f"{', '.join(words[: _NAMED - 2])}, … {words[-1]} ({len(words)} in all)"
