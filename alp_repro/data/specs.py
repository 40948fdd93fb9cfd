"""The three data sets of the paper, each with all its properties in one entry.

To add a data set, add an entry here (CONTRIBUTING.md, "A new data set").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from alp_repro.data.source_record import SourceRecord
from alp_repro.data.sources import cifar10, mnist, tiny_imagenet
from alp_repro.errors import InputError


class Writer(Protocol):
    """Writes a local source as a TFDS dataset, in the published order, into a data directory."""

    def __call__(self, data_dir: Path, source: Path, *, skip_corrupt: bool = False) -> SourceRecord:
        """Return the source's record; InputError if it is not the data set or is damaged."""
        ...


def _nothing_shipped() -> Path | None:
    return None


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """The properties of a data set.

    Attributes:
        name: the name in flags, folders and TFDS.
        title: the name in tables and figures.
        image_shape: height, width and channels.
        num_classes: labels are 0 … num_classes − 1.
        train_size: training images of the official data set (a prepared subset may have fewer).
        test_split: the TFDS split that the paper evaluates on.
        test_size: images of that split in the official data set.
        first_images: the paper evaluates on the first images of that split, not on a random draw.
        model: the paper's architecture, by its name in `models.MODELS`.
        eps: the paper's perturbation size, on the 0-255 scale.
        surface_eps: radius of the paper's loss surfaces, on the 0-255 scale.
        eval_batch_size: images in a batch of an evaluation on CPU cores.
        tables: the numbers of the paper's tables about it, that of the main results first.
        version: of the TFDS dataset that `write` makes.
        write: makes the TFDS dataset from local files.
        sources: a description of the files that `write` reads.
        shipped: returns the source that comes with the project, or None.
        downloads: TFDS, or this project's builder, can download it.
    """

    name: str
    title: str
    image_shape: tuple[int, int, int]
    num_classes: int
    train_size: int
    test_size: int
    test_split: str = "test"
    first_images: bool = False
    model: str
    eps: float
    surface_eps: float
    eval_batch_size: int
    tables: tuple[int, ...] = ()
    version: str = "1.0.0"
    write: Writer
    sources: str
    shipped: Callable[[], Path | None] = _nothing_shipped
    downloads: bool = False


MNIST = DatasetSpec(
    name="mnist",
    title="MNIST",
    image_shape=(28, 28, 1),
    num_classes=10,
    train_size=60_000,
    test_size=10_000,
    model="lenet",
    eps=76.5,
    surface_eps=38.25,
    eval_batch_size=200,
    tables=(1,),
    version=mnist.VERSION,
    write=mnist.write_mnist,
    sources="the folder of the four IDX files",
    shipped=mnist.shipped_source,
    downloads=True,
)

CIFAR10 = DatasetSpec(
    name="cifar10",
    title="CIFAR-10",
    image_shape=(32, 32, 3),
    num_classes=10,
    train_size=50_000,
    test_size=10_000,
    model="resnet20_v2",
    eps=16.0,
    surface_eps=16.0,
    eval_batch_size=50,
    tables=(2,),
    version=cifar10.VERSION,
    write=cifar10.write_cifar10,
    sources="the official binary or Python archive, packed or unpacked, or a folder or zip of "
    "images at train/CLASS/* and test/CLASS/*",
    downloads=True,
)

TINY_IMAGENET = DatasetSpec(
    name="tiny_imagenet",
    title="Tiny ImageNet",
    image_shape=(64, 64, 3),
    num_classes=200,
    train_size=100_000,
    test_size=10_000,
    test_split="validation",
    first_images=True,
    model="resnet50_v2",
    eps=16.0,
    surface_eps=16.0,
    eval_batch_size=25,
    tables=(4, 3, 5),
    version=tiny_imagenet.VERSION,
    write=tiny_imagenet.write_tiny_imagenet,
    sources="the official zip or its folder",
    downloads=True,
)

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in (MNIST, CIFAR10, TINY_IMAGENET)}


def dataset_spec(name: str) -> DatasetSpec:
    """Return the data set of this name; InputError, with the known names, if there is none."""
    if name not in DATASETS:
        raise InputError(f"unknown dataset {name!r}: expected one of {', '.join(DATASETS)}")
    return DATASETS[name]
