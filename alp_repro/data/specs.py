"""The three data sets of the paper, as facts."""

from __future__ import annotations

from dataclasses import dataclass

from alp_repro.errors import InputError


@dataclass(frozen=True)
class DatasetSpec:
    """A data set as the experiments see it.

    Attributes:
        name: the name that flags use.
        tfds_name: the name that `tfds.load` knows.
        image_shape: height, width and channels.
        num_classes: labels are 0 … num_classes − 1.
        train_size: training images of the official data set (a prepared subset may hold fewer).
        test_split: the TFDS split that the paper evaluates on.
        test_size: images of that split in the official data set.
    """

    name: str
    tfds_name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    train_size: int
    test_split: str
    test_size: int


DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec("mnist", "mnist", (28, 28, 1), 10, 60000, "test", 10000),
        DatasetSpec("cifar10", "cifar10", (32, 32, 3), 10, 50000, "test", 10000),
        DatasetSpec(
            "tiny_imagenet", "tiny_imagenet", (64, 64, 3), 200, 100000, "validation", 10000
        ),
    )
}


def dataset_spec(name: str) -> DatasetSpec:
    """The data set of this name; InputError lists the names when there is none."""
    if name not in DATASETS:
        raise InputError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name]
