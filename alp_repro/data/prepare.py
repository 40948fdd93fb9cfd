"""Making the TFDS datasets: MNIST from the repository's files, the others from what is at hand.

The first use of a data set prepares it: from the files that come with the project, where there are
any, else by a download. `prepare_from_source` takes files that were brought by hand.
"""

from __future__ import annotations

import functools
from pathlib import Path

from absl import logging

from alp_repro.data import source_record, store
from alp_repro.data.source_record import SourceRecord
from alp_repro.data.specs import DatasetSpec
from alp_repro.errors import InputError, MissingDataError


def prepared_folder(spec: DatasetSpec, data_dir: Path) -> Path:
    """Where the TFDS dataset lies, or will lie."""
    return store.dataset_folder(data_dir, spec.name, spec.version)


def ensure_prepared(spec: DatasetSpec, data_dir: Path) -> SourceRecord:
    """Prepare the TFDS dataset if it is not there; return the source it was made from.

    Raises InputError when the data directory cannot be written to, the files in the repository
    are damaged; MissingDataError when there is no network.
    """
    folder = prepared_folder(spec, data_dir)
    if store.is_prepared(folder):
        return source_record.read(folder)

    def write(temporary: Path) -> SourceRecord:
        shipped = spec.shipped()
        if shipped is not None:
            return spec.write(temporary, shipped)
        return _download(spec, temporary, data_dir)

    return store.prepare(data_dir, spec.name, spec.version, write=write)


def prepare_from_source(
    spec: DatasetSpec,
    source: Path,
    *,
    data_dir: Path,
    skip_corrupt: bool = False,
    overwrite: bool = False,
) -> SourceRecord:
    """Prepare the TFDS dataset from files that were brought by hand: `DatasetSpec.sources`.

    Nothing is left behind when it fails.

    Raises InputError when the source is not the data set, when it holds corrupt images and
    `skip_corrupt` is false, or when a dataset is already there and `overwrite` is false.
    """
    folder = prepared_folder(spec, data_dir)
    if store.is_prepared(folder) and not overwrite:
        raise InputError(
            f"{spec.name} is already prepared in {folder} (source: "
            f"{source_record.read(folder).summary}): overwrite replaces it"
        )
    write = functools.partial(spec.write, source=source, skip_corrupt=skip_corrupt)
    return store.prepare(data_dir, spec.name, spec.version, write=write, overwrite=overwrite)


def _download(spec: DatasetSpec, temporary: Path, data_dir: Path) -> SourceRecord:
    by_hand = f"its files can be brought by hand ({spec.sources})"
    if not spec.downloads:
        raise MissingDataError(
            f"{spec.name} is not in {data_dir} and cannot be downloaded; {by_hand}",
            dataset=spec.name,
            data_dir=data_dir,
        )
    logging.warning(
        "%s is not in %s: downloading it; without a network that fails only after some minutes "
        "(%s)",
        spec.name,
        data_dir,
        by_hand,
    )
    import tensorflow_datasets as tfds

    from alp_repro.data.sources import tiny_imagenet_builder  # noqa: F401 (TFDS then knows it)

    builder = tfds.builder(f"{spec.name}:{spec.version}", data_dir=temporary)
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
        raise MissingDataError(
            f"{spec.name} cannot be downloaded ({store.first_line(error)}); {by_hand}",
            dataset=spec.name,
            data_dir=data_dir,
        ) from error
    return SourceRecord("TFDS download, published order", builder.info.full_name, verified=True)
