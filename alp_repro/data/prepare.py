"""Making the TFDS datasets: MNIST from the repository's files, the others from what is at hand.

The first use of a data set prepares it: MNIST from the IDX files in `data/mnist`, the others, and
MNIST where those files were removed, by a download. `prepare_from_source` takes files that were
brought by hand.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from alp_repro.data import store
from alp_repro.data.sources import mnist
from alp_repro.data.sources.cifar10 import write_cifar10
from alp_repro.data.sources.tiny_imagenet import write_tiny_imagenet
from alp_repro.data.specs import DatasetSpec
from alp_repro.data.store import SourceRecord
from alp_repro.errors import InputError


def prepared_folder(spec: DatasetSpec, data_dir: Path) -> Path:
    """Where the TFDS dataset lies, or will lie."""
    return store.dataset_folder(data_dir, spec.tfds_name, _version(spec))


def ensure_prepared(spec: DatasetSpec, data_dir: Path) -> SourceRecord:
    """Prepare the TFDS dataset if it is not there; return the source it was made from.

    Raises InputError when the data directory cannot be written to, the files in the repository
    are damaged, or there is no network.
    """
    folder = prepared_folder(spec, data_dir)
    if store.is_prepared(folder):
        return store.read_record(folder)

    def write(temporary: Path) -> SourceRecord:
        embedded = mnist.embedded_folder()
        if spec.name == "mnist" and mnist.files_present(embedded):
            return write_mnist(temporary, embedded, source="embedded IDX files")
        return _download(spec, temporary, data_dir)

    return store.prepare(data_dir, spec.tfds_name, _version(spec), write=write)


def prepare_from_source(
    spec: DatasetSpec,
    source: Path,
    *,
    data_dir: Path,
    skip_corrupt: bool = False,
    overwrite: bool = False,
) -> SourceRecord:
    """Prepare the TFDS dataset from files that were brought by hand.

    MNIST: a folder with the four IDX files. CIFAR-10: see `write_cifar10`. Tiny ImageNet: a zip or
    folder in the official layout. Nothing is left behind when it fails.

    Raises InputError when the source is not the data set, when it holds corrupt images and
    `skip_corrupt` is false, or when a dataset is already there and `overwrite` is false.
    """
    folder = prepared_folder(spec, data_dir)
    if store.is_prepared(folder) and not overwrite:
        raise InputError(
            f"{spec.name} is already prepared in {folder} (source: "
            f"{store.read_record(folder).summary}): --overwrite replaces it"
        )

    def write(temporary: Path) -> SourceRecord:
        if spec.name == "mnist":
            if not source.is_dir():
                raise InputError(f"source {source} is not a folder with the four MNIST IDX files")
            return write_mnist(temporary, source, source="local IDX files")
        if spec.name == "cifar10":
            return write_cifar10(temporary, source, skip_corrupt=skip_corrupt)
        return write_tiny_imagenet(temporary, source, skip_corrupt=skip_corrupt)

    return store.prepare(data_dir, spec.tfds_name, _version(spec), write=write, overwrite=overwrite)


def write_mnist(data_dir: Path, folder: Path, *, source: str) -> SourceRecord:
    """Write MNIST from the IDX files in `folder` as a TFDS dataset into `data_dir`."""
    splits = {}
    for split in ("train", "test"):
        pairs = zip(*mnist.read_split(folder, split), strict=True)
        splits[split] = [
            (index, {"image": image, "label": int(label)})
            for index, (image, label) in enumerate(pairs)
        ]
    builder_class = tfds.builder_cls("mnist")
    store.store_examples(
        data_dir,
        "mnist",
        str(builder_class.VERSION),
        # The features of TFDS' own MNIST, so that `tfds.load` reads both alike.
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        splits=splits,
        description="The MNIST database of handwritten digits, in the published order.",
    )
    return SourceRecord(source, str(folder))


def _version(spec: DatasetSpec) -> str:
    return str(tfds.builder_cls(spec.tfds_name).VERSION)


def _download(spec: DatasetSpec, temporary: Path, data_dir: Path) -> SourceRecord:
    by_hand = (
        "to bring the data by hand: python -m experiments.prepare_data "
        f"--dataset={spec.name} --source=PATH --data_dir={data_dir}"
    )
    logging.warning(
        "%s is not in %s: downloading it; without a network that fails only after some minutes "
        "(%s)",
        spec.name,
        data_dir,
        by_hand,
    )
    builder = tfds.builder(spec.tfds_name, data_dir=temporary)
    # TFDS shuffles what it writes unless the dataset says no; the paper's evaluation images are
    # named by their position in the published files, so that order must stay.
    builder.info.as_proto.disable_shuffling = True
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        with store.quiet_tfds():
            builder.download_and_prepare(
                download_dir=str(data_dir / "downloads"), download_config=config
            )
    except (OSError, tfds.download.DownloadError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{spec.name} cannot be downloaded ({reason}); {by_hand}") from error
    return SourceRecord("TFDS download, published order", builder.info.full_name)
