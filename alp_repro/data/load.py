"""The images of the data sets, read through TensorFlow Datasets (TFDS).

All reading goes through `tfds.load`. The first use of a data set prepares its TFDS dataset in the
data directory (`store.default_data_dir`); see `prepare` for its sources.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from alp_repro.data import digests, prepare, source_record, store
from alp_repro.data.images import Images
from alp_repro.data.source_record import SourceRecord
from alp_repro.data.specs import DatasetSpec, dataset_spec
from alp_repro.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_datasets as tfds

EVALUATION_IMAGES = 1000
_EVALUATION_SEED = 123
_READ_BATCH = 1024
Split = Literal["train", "test"]
# The number of evaluation images; "all": the whole split that the paper draws them from.
ImageCount = int | Literal["all"]


def load_split(
    name: str, split: Split, *, data_dir: str | Path | None = None, limit: int | None = None
) -> Images:
    """Read a split, or its first `limit` images, in the published order.

    The TFDS dataset is prepared first if it is not in the data directory. `split="test"` is the
    split the paper evaluates on: the validation images for Tiny ImageNet.

    Raises:
      InputError: an unknown data set or split, a limit below 1, a data directory that cannot be
        written to, or data that is damaged or has changed since it was prepared.
    """
    spec = dataset_spec(name)
    if split not in ("train", "test"):
        raise InputError(f"unknown split {split!r} of {name}: expected train or test")
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} of {name} images: expected 1 or more")
    directory = store.resolve_data_dir(data_dir)
    tfds_split = spec.test_split if split == "test" else "train"
    record = _checked(spec, directory, tfds_split)
    folder = prepare.prepared_folder(spec, directory)
    with _as_input_error(folder):
        dataset, info = _tfds_load(spec, tfds_split, directory)
        available = int(info.splits[tfds_split].num_examples)
        count = available if limit is None else min(limit, available)
        if info.disable_shuffling:
            images, labels, _ = _read(spec, dataset.take(count), count)
        elif "id" in info.features:
            images, labels, ids = _read(spec, dataset, available)
            # TFDS' ids ("test_00042") carry the published position.
            order = np.argsort(ids)[:count]
            images, labels = images[order], labels[order]
        else:
            raise InputError(
                f"{name} in {directory} was prepared by TFDS in shuffled order, so the paper's "
                "evaluation images cannot be identified: choose another data directory"
            )
    if split == "test" and 0 < count == available:
        drawn = evaluation_indices(name, _drawn(spec, available), available=available)
        digests.save(folder, images, labels, drawn)
    return Images(images, labels, np.arange(count, dtype=np.int64), record.summary)


def split_sizes(name: str, *, data_dir: str | Path | None = None) -> dict[Split, int]:
    """Return the numbers of images in the prepared train and test splits, without reading them."""
    spec = dataset_spec(name)
    with _prepared_info(spec, store.resolve_data_dir(data_dir)) as info:
        return {
            "train": int(info.splits["train"].num_examples),
            "test": int(info.splits[spec.test_split].num_examples),
        }


def load_class_names(name: str, *, data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Return the names of the classes in the order of the labels, for figures and messages."""
    with _prepared_info(dataset_spec(name), store.resolve_data_dir(data_dir)) as info:
        metadata = info.metadata or {}
        return tuple(metadata.get("class_names", info.features["label"].names))


def unverified_source(name: str, *, data_dir: str | Path | None = None) -> str:
    """Return the source of the prepared images if they are not verified as official; else "".

    Tables and figures state it. Also "" if the data set is not prepared.
    """
    folder = prepare.prepared_folder(dataset_spec(name), store.resolve_data_dir(data_dir))
    if not store.is_prepared(folder):
        return ""
    record = source_record.read(folder)
    return "" if record.verified else record.summary


def evaluation_indices(
    name: str, num_images: ImageCount = EVALUATION_IMAGES, *, available: int
) -> np.ndarray:
    """Return the positions, int64 [num_images], of the paper's evaluation images in the test split.

    MNIST and CIFAR-10: the first `num_images` of `numpy.random.seed(123);
    numpy.random.choice(10000, 1000)`, drawn with replacement; if the split has another number of
    images (small generated data), the same draw from these. Tiny ImageNet: the first images of the
    validation split (protocol, "evaluation set"). "all": the whole split, each image once, in the
    published order.

    Raises:
      InputError: `num_images` is neither in 1 … 1000 nor "all", or the split has too few images.
    """
    spec = dataset_spec(name)
    if available < 1:
        raise InputError(f"the {spec.test_split} split of {name} is empty")
    if num_images == "all":
        return np.arange(available, dtype=np.int64)
    if not isinstance(num_images, int) or not 1 <= num_images <= EVALUATION_IMAGES:
        raise InputError(
            f"{num_images} evaluation images of {name}: expected 1 to {EVALUATION_IMAGES}, the "
            f'size of the paper\'s set, or "all" for the whole {spec.test_split} split'
        )
    if spec.first_images:
        if num_images > available:
            raise InputError(
                f"{num_images} evaluation images of {name}: expected at most {available}, the size "
                f"of its {spec.test_split} split"
            )
        return np.arange(num_images, dtype=np.int64)
    generator = np.random.RandomState(_EVALUATION_SEED)
    return generator.choice(available, EVALUATION_IMAGES)[:num_images].astype(np.int64)


def load_evaluation_set(
    name: str,
    *,
    num_images: ImageCount = EVALUATION_IMAGES,
    data_dir: str | Path | None = None,
) -> Images:
    """Return the paper's evaluation images (`evaluation_indices`), in the order of its draw.

    An image that is drawn twice occurs twice, as in the paper's numbers. "all" gives the whole
    split that the paper draws from, in order.
    """
    evaluation_indices(name, num_images, available=EVALUATION_IMAGES)  # check before reading
    test = load_split(name, "test", data_dir=data_dir)
    indices = evaluation_indices(name, num_images, available=len(test.labels))
    return Images(test.images[indices], test.labels[indices], indices, test.source)


def evaluation_digest(
    name: str, num_images: ImageCount = EVALUATION_IMAGES, *, data_dir: str | Path | None = None
) -> str:
    """Return the `Images.digest` of `load_evaluation_set`, from stored digests if possible.

    The images are read only if the whole test split was never read since it was prepared.
    """
    spec = dataset_spec(name)
    folder = prepare.prepared_folder(spec, store.resolve_data_dir(data_dir))
    known = digests.load(folder, split=spec.test_split)
    if known is not None and num_images == "all":
        return known.whole
    if known is not None and isinstance(num_images, int) and 1 <= num_images <= len(known.first):
        return known.first[num_images - 1]
    return load_evaluation_set(name, num_images=num_images, data_dir=data_dir).digest


def evaluation_split_size(name: str, *, data_dir: str | Path | None = None) -> int:
    """Return the number of images in the prepared test split."""
    spec = dataset_spec(name)
    folder = prepare.prepared_folder(spec, store.resolve_data_dir(data_dir))
    known = digests.load(folder, split=spec.test_split)
    return known.images if known is not None else split_sizes(name, data_dir=data_dir)["test"]


def _drawn(spec: DatasetSpec, available: int) -> int:
    """Return the largest number of evaluation images from a test split of this size."""
    return min(EVALUATION_IMAGES, available) if spec.first_images else EVALUATION_IMAGES


def _checked(spec: DatasetSpec, data_dir: Path, tfds_split: str | None) -> SourceRecord:
    """Prepare the dataset if needed, and compare its files with their checksums."""
    record = prepare.ensure_prepared(spec, data_dir)
    source_record.verify_checksums(prepare.prepared_folder(spec, data_dir), split=tfds_split)
    return record


@contextlib.contextmanager
def _as_input_error(folder: Path) -> Iterator[None]:
    """Convert the errors that TFDS and TensorFlow raise on damaged files into an InputError.

    For datasets without checksums: those that TFDS prepared, and those of older versions.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the dataset in {folder} cannot be read ({store.first_line(error)}): "
            f"{source_record.remedy(folder)}"
        ) from error


@contextlib.contextmanager
def _prepared_info(spec: DatasetSpec, data_dir: Path) -> Iterator[tfds.core.DatasetInfo]:
    import tensorflow_datasets as tfds

    _checked(spec, data_dir, None)
    folder = prepare.prepared_folder(spec, data_dir)
    with _as_input_error(folder), store.quiet_tfds():
        yield tfds.builder(f"{spec.name}:{spec.version}", data_dir=data_dir).info


def _tfds_load(
    spec: DatasetSpec, tfds_split: str, data_dir: Path
) -> tuple[tf.data.Dataset, tfds.core.DatasetInfo]:
    import tensorflow_datasets as tfds

    with store.quiet_tfds():
        return tfds.load(
            f"{spec.name}:{spec.version}",
            split=tfds_split,
            data_dir=data_dir,
            download=False,
            shuffle_files=False,
            # One file after the other: otherwise the examples of several files are interleaved.
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
            with_info=True,
        )


def _read(
    spec: DatasetSpec, dataset: tf.data.Dataset, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the images, labels and, if there are any, ids of `count` examples."""
    # Filled in place: joining collected batches would need twice the memory.
    images = np.empty((count, *spec.image_shape), np.uint8)
    labels = np.empty(count, np.int32)
    ids: list[bytes] = []
    start = 0
    for batch in dataset.batch(_READ_BATCH).prefetch(2).as_numpy_iterator():
        stop = start + len(batch["label"])
        images[start:stop] = batch["image"]
        labels[start:stop] = batch["label"]
        ids.extend(batch.get("id", ()))
        start = stop
    if start != count:
        raise ValueError(f"expected {count} images, got {start}")
    if count and not (labels.min() >= 0 and labels.max() < spec.num_classes):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} are out of range")
    return images, labels, np.asarray(ids)
