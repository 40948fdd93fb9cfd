"""The images of the paper's three data sets, read through TensorFlow Datasets (TFDS).

All reading goes through `tfds.load`. The first use of a data set prepares its TFDS dataset in the
data directory (`store.default_data_dir`); `dataset_preparation` tells from what.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from alp_repro.data import prepare, store
from alp_repro.data.images import Images
from alp_repro.data.specs import DATASETS, DatasetSpec, dataset_spec
from alp_repro.errors import InputError

__all__ = [
    "DATASETS",
    "EVALUATION_IMAGES",
    "DatasetSpec",
    "Images",
    "Split",
    "dataset_spec",
    "evaluation_indices",
    "load_class_names",
    "load_evaluation_set",
    "load_split",
    "split_sizes",
]

EVALUATION_IMAGES = 1000
_EVALUATION_SEED = 123
_READ_BATCH = 1024
Split = Literal["train", "test"]


def load_split(
    name: str, split: Split, *, data_dir: str | Path | None = None, limit: int | None = None
) -> Images:
    """Read a split, or its first `limit` images, in the published order.

    The TFDS dataset is prepared first when the data directory does not hold it. `split="test"` is
    the split the paper evaluates on: the validation images for Tiny ImageNet.

    Raises InputError for an unknown data set or split, a limit below 1, a data directory that
    cannot be written to, and data that is not what it should be.
    """
    spec = dataset_spec(name)
    if split not in ("train", "test"):
        raise InputError(f"unknown split {split!r} of {name}: choose train or test")
    if limit is not None and limit < 1:
        raise InputError(f"limit of {name} images is {limit}: it must be at least 1")
    directory = store.chosen_data_dir(data_dir)
    record = prepare.ensure_prepared(spec, directory)
    tfds_split = spec.test_split if split == "test" else "train"
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
            "evaluation images cannot be told: choose another data directory with --data_dir"
        )
    return Images(images, labels, np.arange(count, dtype=np.int64), record.summary)


def split_sizes(name: str, *, data_dir: str | Path | None = None) -> dict[Split, int]:
    """How many images the prepared train and test splits hold; reads none of them."""
    spec = dataset_spec(name)
    info = _prepared_info(spec, store.chosen_data_dir(data_dir))
    return {
        "train": int(info.splits["train"].num_examples),
        "test": int(info.splits[spec.test_split].num_examples),
    }


def load_class_names(name: str, *, data_dir: str | Path | None = None) -> tuple[str, ...]:
    """The names of the classes in the order of the labels, for figures and messages."""
    info = _prepared_info(dataset_spec(name), store.chosen_data_dir(data_dir))
    metadata = info.metadata or {}
    return tuple(metadata.get("class_names", info.features["label"].names))


def evaluation_indices(
    name: str, num_images: int = EVALUATION_IMAGES, *, available: int
) -> np.ndarray:
    """The positions, int64 [num_images], of the paper's evaluation images in the test split.

    MNIST and CIFAR-10: the first `num_images` of `numpy.random.seed(123);
    numpy.random.choice(10000, 1000)`, drawn with replacement; where the split holds another number
    of images (small generated data), the same draw from as many as there are. Tiny ImageNet: the
    first images of the validation split (protocol, "evaluation set").

    Raises InputError when `num_images` is not in 1 … 1000 or the split has too few images.
    """
    spec = dataset_spec(name)
    if not 1 <= num_images <= EVALUATION_IMAGES:
        raise InputError(
            f"{num_images} evaluation images of {name} asked for: the paper's set has 1 to "
            f"{EVALUATION_IMAGES}"
        )
    if available < 1:
        raise InputError(f"the {spec.test_split} split of {name} is empty")
    if spec.name == "tiny_imagenet":
        if num_images > available:
            raise InputError(
                f"{num_images} evaluation images of {name} asked for: its {spec.test_split} split "
                f"has {available}"
            )
        return np.arange(num_images, dtype=np.int64)
    generator = np.random.RandomState(_EVALUATION_SEED)
    return generator.choice(available, EVALUATION_IMAGES)[:num_images].astype(np.int64)


def load_evaluation_set(
    name: str, *, num_images: int = EVALUATION_IMAGES, data_dir: str | Path | None = None
) -> Images:
    """The paper's evaluation images (`evaluation_indices`), in the order in which it draws them.

    An image that is drawn twice is there twice, as in the paper's numbers.
    """
    evaluation_indices(name, num_images, available=EVALUATION_IMAGES)  # refuse before reading
    test = load_split(name, "test", data_dir=data_dir)
    indices = evaluation_indices(name, num_images, available=len(test.labels))
    return Images(test.images[indices], test.labels[indices], indices, test.source)


def _prepared_info(spec: DatasetSpec, data_dir: Path) -> tfds.core.DatasetInfo:
    prepare.ensure_prepared(spec, data_dir)
    with store.quiet_tfds():
        return tfds.builder(spec.tfds_name, data_dir=data_dir).info


def _tfds_load(
    spec: DatasetSpec, tfds_split: str, data_dir: Path
) -> tuple[tf.data.Dataset, tfds.core.DatasetInfo]:
    with store.quiet_tfds():
        return tfds.load(
            spec.tfds_name,
            split=tfds_split,
            data_dir=data_dir,
            download=False,
            shuffle_files=False,
            # One file after the other, or the examples of several files would come interleaved.
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
            with_info=True,
        )


def _read(
    spec: DatasetSpec, dataset: tf.data.Dataset, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and, where there are any, ids of `count` examples."""
    # Filled in place: collecting batches and joining them would need the memory twice.
    images = np.empty((count, *spec.image_shape), np.uint8)
    labels = np.empty(count, np.int32)
    ids: list[bytes] = []
    start = 0
    for batch in tfds.as_numpy(dataset.batch(_READ_BATCH).prefetch(2)):
        stop = start + len(batch["label"])
        images[start:stop] = batch["image"]
        labels[start:stop] = batch["label"]
        ids.extend(batch.get("id", ()))
        start = stop
    return images, labels, np.asarray(ids)
