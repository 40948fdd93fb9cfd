"""Prepares a TFDS data set from local files, for machines without a network.

  python -m experiments.prepare_data --dataset=cifar10 --source=cifar-10-binary.tar.gz

Sources: for MNIST the folder of the four IDX files; for CIFAR-10 the official binary or Python
archive, packed or unpacked, or a folder or zip of images at train/CLASS/* and test/CLASS/*; for
Tiny ImageNet the official zip or its folder. Subsets are allowed; the numbers of images are
printed.
"""

from __future__ import annotations

from absl import flags

from alp_repro import files
from alp_repro.data import DATASETS, dataset_spec, prepare, split_sizes, store

from .console import app

_DATASET = flags.DEFINE_enum(
    "dataset", None, list(DATASETS), "The data set to prepare.", required=True
)
_SOURCE = flags.DEFINE_string("source", None, "Folder or archive of its files.", required=True)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the TFDS data sets (default: $ALP_REPRO_DATA_DIR, else .tfds in the checkout, else "
    "~/.cache/alp_repro/tfds).",
)
_SKIP_CORRUPT = flags.DEFINE_bool(
    "skip_corrupt", False, "Leave out corrupt images, and list them, instead of stopping."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the data set if it exists.")


def main(_: list[str]) -> None:
    """Prepare the data set and print what was found."""
    spec = dataset_spec(_DATASET.value)
    data_dir = store.resolve_data_dir(_DATA_DIR.value)
    record = prepare.prepare_from_source(
        spec,
        files.expanded(_SOURCE.value),
        data_dir=data_dir,
        skip_corrupt=_SKIP_CORRUPT.value,
        overwrite=_OVERWRITE.value,
    )
    counts = split_sizes(spec.name, data_dir=data_dir)
    print(
        f"{spec.name}: {counts['train']} of {spec.train_size} training and {counts['test']} of "
        f"{spec.test_size} {spec.test_split} images, {spec.num_classes} classes\n"
        f"source: {record.summary} ({record.origin})\n"
        f"written to {prepare.prepared_folder(spec, data_dir)}"
    )
    for name in record.skipped:
        print(f"left out: {name}")


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
