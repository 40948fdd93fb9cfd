"""Images of one's own: an `.npz` file, a folder of images by class, or the name of a TFDS data set.

Nothing is unpickled. What is read is given back as float32 in [0, 1] with a channel axis.
"""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.data import load
from alp_repro.data.specs import DATASETS
from alp_repro.data.store import quiet_tfds
from alp_repro.errors import InputError

if TYPE_CHECKING:
    pass

# Pairs of names of images and labels, as published .npz files have them; the test split first.
NAMES = (
    ("x_test", "y_test"),
    ("test_images", "test_labels"),
    ("X_test", "Y_test"),
    ("X_test", "y_test"),
    ("x", "y"),
    ("X", "Y"),
    ("X", "y"),
    ("images", "labels"),
    ("image", "label"),
    ("data", "targets"),
    ("data", "labels"),
    ("arr_0", "arr_1"),
)
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif"}


@dataclasses.dataclass(frozen=True)
class OwnImages:
    """Images with labels, ready to be attacked.

    Attributes:
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      source: what they were read from.
      notes: what was done to them, one line each.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str
    notes: tuple[str, ...] = ()


def read_own_images(
    source: str | Path, *, limit: int | None = None, data_dir: str | Path | None = None
) -> OwnImages:
    """Reads images and labels from a file, a folder, or a TFDS data set's test split.

    Args:
      source: an `.npz` file with images and labels under common names (`NAMES`); a folder with one
        folder of images a class, labels being their places in alphabetical order (or their names,
        where all are numbers); a name that TFDS knows.
      limit: the first so many; of a folder, so many spread evenly over the classes. None: all.
      data_dir: of TFDS.

    Raises:
      InputError: there are none, they are damaged, or labels do not fit images.
    """
    if limit is not None and limit < 1:
        raise InputError(f"number of images {limit}: 1 or more is needed")
    path = Path(source).expanduser()
    if path.is_dir():
        images, labels = _of_folder(path, limit)
    elif path.is_file():
        images, labels = _of_file(path)
    else:
        images, labels = _of_tfds(str(source), limit, data_dir)
    images, notes = unit_images(images, where=str(source))
    labels, more = class_numbers(labels, len(images), where=str(source))
    return OwnImages(images[:limit], labels[:limit], str(source), (*notes, *more))


def unit_images(images: np.ndarray, *, where: str = "data") -> tuple[np.ndarray, tuple[str, ...]]:
    """Images of any common form as float32 [n, height, width, channels] in [0, 1], and notes.

    Args:
      images: uint8; floats in [0, 1], which stay, or up to 255, which are divided by it; with or
        without a channel axis.
      where: for messages.

    Raises:
      InputError: no images, or values that belong to neither scale.
    """
    notes = []
    if images.ndim == 3:
        images = images[..., None]
        notes.append("a channel axis was added")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"{where}: images of shape {images.shape}; [n, height, width] or [n, height, width, "
            "channels] with n > 0 is needed"
        )
    if not (np.issubdtype(images.dtype, np.number) or images.dtype == bool):
        raise InputError(f"{where}: images of type {images.dtype}; numbers are needed")
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{where}: pixels that are not finite")
    whole = images.dtype == np.uint8 or (np.issubdtype(images.dtype, np.integer) and high > 1)
    if low < 0 or high > 255:
        raise InputError(
            f"{where}: pixels in [{low:g}, {high:g}]; [0, 1] or [0, 255] is needed (what the model "
            "wants is said by the pixel range, and the images stay plain)"
        )
    if whole or high > 1:
        notes.append("pixels divided by 255")
        return images.astype(np.float32) / np.float32(255), tuple(notes)
    return images.astype(np.float32), tuple(notes)


def class_numbers(
    labels: np.ndarray, count: int, *, where: str = "data"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any common form as int32 [n], and notes.

    Args:
      labels: integers (whole floats too) [n] or [n, 1], or one-hot [n, classes].
      count: of images.
      where: for messages.

    Raises:
      InputError: another number of them, or no class numbers.
    """
    notes: tuple[str, ...] = ()
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and _one_hot(labels):
        labels, notes = labels.argmax(axis=1), ("labels were one-hot",)
    if labels.shape != (count,):
        raise InputError(
            f"{where}: labels of shape {labels.shape} for {count} images; one integer each, or "
            "one-hot, is needed"
        )
    if not np.issubdtype(labels.dtype, np.number) or not np.all(labels == np.floor(labels)):
        raise InputError(f"{where}: labels of type {labels.dtype}; class numbers are needed")
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise InputError(f"{where}: labels from {labels.min()}; class numbers of 0 or more")
    return labels.astype(np.int32), notes


def _one_hot(labels: np.ndarray) -> bool:
    numbers = np.issubdtype(labels.dtype, np.number) or labels.dtype == bool
    return bool(numbers and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def _of_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise InputError(f"data {path} is truncated or no .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            for x, y in NAMES:
                if x in file.files and y in file.files:
                    return file[x], file[y]
            found = ", ".join(file.files[:8]) or "nothing"
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"data {path} cannot be read ({error})") from error
    except (NotImplementedError, RuntimeError) as error:  # an unknown or encrypted zip method
        raise InputError(f"data {path} cannot be read ({error})") from error
    pairs = ", ".join(f"{x} and {y}" for x, y in NAMES[:1] + NAMES[4:8])
    raise InputError(f"data {path} has {found}: images and labels are looked for as {pairs}")


def _of_folder(path: Path, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        raise InputError(f"data {path} has {len(folders)} folders: one a class, of two or more")
    numbered = all(folder.name.isdigit() for folder in folders)
    files = []
    for place, folder in enumerate(folders):
        label = int(folder.name) if numbered else place
        files.append(
            [(f, label) for f in sorted(folder.iterdir()) if f.suffix.lower() in _SUFFIXES]
        )
    chosen = _evenly(files, limit)
    if not chosen:
        raise InputError(f"data {path} has no images ({', '.join(sorted(_SUFFIXES))})")
    images = [_decoded(file) for file, _ in chosen]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        words = " and ".join(str(shape) for shape in sorted(shapes)[:2])
        raise InputError(f"data {path} has images of shapes {words}: one shape for all is needed")
    return np.stack(images), np.array([label for _, label in chosen])


def _evenly(files: list[list[tuple[Path, int]]], limit: int | None) -> list[tuple[Path, int]]:
    """The first of each class, then the second of each, and so on, up to the limit."""
    longest = max(map(len, files), default=0)
    turns = (of_class[i] for i in range(longest) for of_class in files if i < len(of_class))
    return list(turns)[:limit]


def _decoded(file: Path) -> np.ndarray:
    import tensorflow as tf

    try:
        return tf.io.decode_image(file.read_bytes(), expand_animations=False).numpy()
    except (OSError, tf.errors.OpError) as error:
        message = str(error).splitlines()[0][:120]
        raise InputError(f"data {file} is no image that can be read ({message})") from error


def _of_tfds(
    name: str, limit: int | None, data_dir: str | Path | None
) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow as tf

    if name in DATASETS:
        found = load.load_split(name, "test", data_dir=data_dir, limit=limit)
        return found.images, found.labels
    if not name.replace("_", "").replace("/", "").replace(":", "").replace(".", "").isalnum() or (
        Path(name).suffix or name.startswith("/")
    ):
        raise InputError(f"data {name} is not there: an .npz file, a folder, or a TFDS name")
    import tensorflow_datasets as tfds

    try:
        with quiet_tfds():
            builder = tfds.builder(name, data_dir=data_dir)
            if not {"image", "label"} <= set(builder.info.features):
                raise InputError(f"data {name}: a TFDS data set without images and labels")
            split = next(s for s in ("test", "validation", "train") if s in builder.info.splits)
            builder.download_and_prepare()
            dataset = builder.as_dataset(split=split).take(-1 if limit is None else limit)
            rows = list(tfds.as_numpy(dataset))
    except (tfds.core.DatasetNotFoundError, StopIteration) as error:
        raise InputError(
            f"data {name} is neither a file, a folder, nor a data set that TFDS knows"
        ) from error
    except (OSError, ValueError, tf.errors.OpError) as error:
        if isinstance(error, InputError):
            raise
        message = " ".join(str(error).split())[:160]
        raise InputError(f"data {name} cannot be had from TFDS ({message})") from error
    if len({row["image"].shape for row in rows}) != 1:
        raise InputError(f"data {name}: images of different shapes; one shape is needed")
    return np.stack([row["image"] for row in rows]), np.array([row["label"] for row in rows])
