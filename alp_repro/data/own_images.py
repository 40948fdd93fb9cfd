"""The user's own images: an `.npz` file, a folder of images by class, or a TFDS data set.

Nothing is unpickled. Images are returned as float32 in [0, 1] with a channel axis.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro.data import load
from alp_repro.data.image_folder import read_folder
from alp_repro.data.own_arrays import balanced_indices, class_counts, class_indices, unit_images
from alp_repro.data.specs import DATASETS
from alp_repro.data.store import quiet_tfds
from alp_repro.errors import InputError, reason
from alp_repro.files import expanded, opened_arrays
from alp_repro.validation.plain_numbers import quoted, whole_number

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_datasets as tfds

MAX_IMAGES = 10**9  # far more than any real call needs
# The names of images and labels in common .npz files; the test split first.
ARRAY_NAMES = (
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


@dataclasses.dataclass(frozen=True)
class OwnImages:
    """Images with labels, ready to be attacked.

    Attributes:
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      source: where they were read from.
      notes: the conversions that were applied, one line each.
    """

    images: np.ndarray
    labels: np.ndarray
    source: str
    notes: tuple[str, ...] = ()


def read_own_images(
    source: str | Path,
    *,
    limit: int | None = None,
    data_dir: str | Path | None = None,
    class_names: Sequence[str] | str | None = None,
) -> OwnImages:
    """Read images and labels from a file, a folder, or a TFDS data set's test split.

    Args:
      source: an `.npz` file with images and labels under common names (`ARRAY_NAMES`); a folder
        with one subfolder of images per class; the name of a TFDS data set.
      limit: the number of images, spread evenly over the classes (`balanced_indices`). None: all.
      data_dir: of TFDS.
      class_names: the order of the subfolders, see `read_folder`.

    Raises:
      InputError: no images or labels, damaged files, or labels that do not match the images.
    """
    if limit is not None:
        limit = whole_number(limit, name="number of images", low=1, high=MAX_IMAGES)
    if class_names is not None and not (
        isinstance(class_names, list | tuple | str)
        and all(isinstance(name, str) for name in class_names)
    ):
        raise InputError(f"class_names {quoted(class_names)}: expected names of folders")
    path = expanded(source)
    notes: tuple[str, ...] = ()
    if class_names and not path.is_dir():
        raise InputError(f"class_names are for a folder of images by class: {source} is not one")
    if path.is_dir():
        folder = read_folder(path, limit=limit, class_names=class_names)
        images, labels, notes = folder.images, folder.labels, folder.notes
    elif path.is_file():
        images, labels, notes = _of_file(path)
    else:
        images, labels = _of_tfds(str(source), limit, data_dir)
    images, image_notes = unit_images(images, where=str(source))
    labels, label_notes = class_indices(labels, len(images), where=str(source))
    chosen = balanced_indices(labels, limit)
    if len(chosen) < len(labels):
        images, labels = images[chosen], labels[chosen]
    return OwnImages(
        images,
        labels,
        str(source),
        (*notes, *image_notes, *label_notes, class_counts(labels)),
    )


def _of_file(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    if not zipfile.is_zipfile(path):
        raise InputError(f"data {path} is truncated or not an .npz file")
    try:
        with opened_arrays(path) as file:
            there = [pair for pair in ARRAY_NAMES if set(pair) <= set(file.files)]
            if there:
                x, y = there[0]
                return file[x], file[y], _taken(there)
            found = ", ".join(file.files[:8]) or "nothing"
    except Exception as error:  # zipfile, zlib, tokenize and NumPy raise errors of many kinds
        raise InputError(f"data {path} cannot be read ({reason(error)})") from error
    pairs = ", ".join(f"{x} and {y}" for x, y in ARRAY_NAMES[:1] + ARRAY_NAMES[4:8])
    raise InputError(f"data {path} has the arrays {found}: expected images and labels as {pairs}")


def _taken(pairs: list[tuple[str, str]]) -> tuple[str, ...]:
    """Return a note on the arrays that are used, if a file has more than one pair of them."""
    if len(pairs) == 1:
        return ()
    taken, *others = (f"{x} and {y}" for x, y in pairs)
    return (f"images and labels are {taken}; the file also has {', '.join(others)}",)


def _of_tfds(
    name: str, limit: int | None, data_dir: str | Path | None
) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow as tf

    if name in DATASETS:
        found = load.load_split(name, "test", data_dir=data_dir)
        return found.images, found.labels
    if not name.replace("_", "").replace("/", "").replace(":", "").replace(".", "").isalnum() or (
        Path(name).suffix or name.startswith("/")
    ):
        raise InputError(
            f"data {name} does not exist: expected an .npz file, a folder, or the name of a TFDS "
            "data set"
        )
    import tensorflow_datasets as tfds

    try:
        with quiet_tfds():
            builder = tfds.builder(name, data_dir=data_dir)
            if not {"image", "label"} <= set(builder.info.features):
                raise InputError(f"data {name}: expected a TFDS data set of images with labels")
            split = next(s for s in ("test", "validation", "train") if s in builder.info.splits)
            builder.download_and_prepare()
            rows = _rows(builder, split, limit)
    except (tfds.core.DatasetNotFoundError, StopIteration) as error:
        raise InputError(
            f"data {name} does not exist: expected an .npz file, a folder, or the name of a TFDS "
            "data set"
        ) from error
    except (OSError, ValueError, tf.errors.OpError) as error:
        if isinstance(error, InputError):
            raise
        message = " ".join(str(error).split())[:160]
        raise InputError(f"data {name} could not be loaded from TFDS ({message})") from error
    if len({row["image"].shape for row in rows}) != 1:
        raise InputError(f"data {name}: expected images of one shape, got different shapes")
    return np.stack([row["image"] for row in rows]), np.array([row["label"] for row in rows])


def _rows(
    builder: tfds.core.DatasetBuilder, split: str, limit: int | None
) -> list[dict[str, np.ndarray]]:
    """Return images and labels of a split, or `limit` of them spread evenly over the classes."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def examples(**options: Any) -> tf.data.Dataset:
        # Both passes must have the same order.
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        return builder.as_dataset(split=split, shuffle_files=False, read_config=config, **options)

    if limit is None:
        return list(tfds.as_numpy(examples()))
    undecoded = examples(decoders={"image": tfds.decode.SkipDecoding()})
    labels = np.array(list(tfds.as_numpy(undecoded.map(lambda row: row["label"]))))
    chosen = balanced_indices(class_indices(labels, len(labels), where=builder.name)[0], limit)
    wanted = tf.constant(np.isin(np.arange(len(labels)), chosen))
    taken = examples().enumerate().filter(lambda i, _: wanted[i]).map(lambda _, row: row)
    found = list(tfds.as_numpy(taken))
    return [found[i] for i in np.searchsorted(np.sort(chosen), chosen)]
