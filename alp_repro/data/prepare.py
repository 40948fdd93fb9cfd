"""Preparation of the TFDS datasets: from the project's own files, downloads, or local files.

The first use of a data set prepares it: from files that come with the project, if there are any,
else by a download. `prepare_from_source` uses local files that the user has obtained.
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
    """Return the folder of the TFDS dataset, which may not exist yet."""
    return store.dataset_folder(data_dir, spec.name, spec.version)


def ensure_prepared(spec: DatasetSpec, data_dir: Path) -> SourceRecord:
    """Prepare the TFDS dataset if it does not exist; return its source.

    Raises:
      InputError: the data directory cannot be written to, or the project's files are damaged.
      MissingDataError: the data set could not be downloaded.
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
    """Prepare the TFDS dataset from local files (`DatasetSpec.sources`).

    If it fails, no partial dataset is left.

    Raises:
      InputError: the source is not the data set, it has corrupt images and `skip_corrupt` is false,
        or the dataset is already prepared and `overwrite` is false.
    """
    folder = prepared_folder(spec, data_dir)
    if store.is_prepared(folder) and not overwrite:
        raise InputError(
            f"{spec.name} is already prepared in {folder} (source: "
            f"{source_record.read(folder).summary}): use overwrite to replace it"
        )
    write = functools.partial(spec.write, source=source, skip_corrupt=skip_corrupt)
    return store.prepare(data_dir, spec.name, spec.version, write=write, overwrite=overwrite)


def _download(spec: DatasetSpec, temporary: Path, data_dir: Path) -> SourceRecord:
    by_hand = f"you can prepare it from local files ({spec.sources})"
    if not spec.downloads:
        raise MissingDataError(
            f"{spec.name} is not in {data_dir} and cannot be downloaded automatically; {by_hand}",
            dataset=spec.name,
            data_dir=data_dir,
        )
    logging.warning(
        "%s is not in %s: downloading it; without a network this fails only after some minutes "
        "(%s)",
        spec.name,
        data_dir,
        by_hand,
    )
    import tensorflow_datasets as tfds

    from alp_repro.data.sources import tiny_imagenet_builder  # noqa: F401 (TFDS then knows it)

    builder = tfds.builder(f"{spec.name}:{spec.version}", data_dir=temporary)
    # TFDS shuffles what it writes unless this is disabled; the paper identifies its evaluation
    # images by their position in the published files, so the order must be kept.
    builder.info.as_proto.disable_shuffling = True
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        with store.quiet_tfds():
            builder.download_and_prepare(
                download_dir=str(data_dir / "downloads"), download_config=config
            )
    except (OSError, tfds.download.DownloadError) as error:
        raise MissingDataError(
            f"{spec.name} could not be downloaded ({store.first_line(error)}); {by_hand}",
            dataset=spec.name,
            data_dir=data_dir,
        ) from error
    return SourceRecord("TFDS download, published order", builder.info.full_name, verified=True)
