r"""Attacks the published models afresh and compares with the published results, image by image.

    python -m experiments.verify
    python -m experiments.verify --rows=clp,lsq --strong_images=50

Of each run in <results_dir>/published/<dataset>/: the model's hash, that its results say what the
tables say, every attack's first restart on all its images, and every restart of `strong` on the
first --strong_images. A processor with other instructions rounds otherwise, which may turn a few
images: up to --tolerance of them are told and let pass. More end with exit code 1, what is missing
or damaged with 2.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from alp_repro import shipped
from alp_repro.data import DATASETS, Images, load_split
from alp_repro.errors import InputError
from alp_repro.evaluation import published
from alp_repro.reporting import stored_tables

from . import app, devices

if TYPE_CHECKING:
    from alp_repro.evaluation.published import Comparison
    from alp_repro.evaluation.record import AttackRecord

FLAGS = flags.FLAGS
_RESULTS = flags.DEFINE_string("results_dir", None, "Folder of the published results.")
_DATASET = flags.DEFINE_enum("dataset", "mnist", list(DATASETS), "Data set.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the TFDS datasets (default: README).")
_ROWS = flags.DEFINE_list("rows", [], "Rows to check. Default: all.")
_STRONG = flags.DEFINE_integer("strong_images", 200, "Images that `strong` attacks.", lower_bound=1)
_TOLERANCE = flags.DEFINE_float(
    "tolerance", 0.02, "Share of a result's images that may differ.", lower_bound=0, upper_bound=1
)
devices.define_flags()

EXIT_DIFFERS = 1


def main(_: list[str]) -> None:
    """Checks every row; exits with 1 where one differs by more than the tolerance."""
    results = Path(_RESULTS.value) if _RESULTS.value else shipped.folder("results")
    rows = _ROWS.value or rows_of(results)
    for row in rows:
        stored_tables.check_published(results, f"{_DATASET.value}/{row}")
    devices.choose()  # what is refused is refused before TensorFlow is imported
    test = load_split(_DATASET.value, "test", data_dir=_DATA_DIR.value)
    started, wrong, compared = time.monotonic(), 0, 0
    for row in rows:
        print(f"{row}:", flush=True)
        for comparison in checked(f"{_DATASET.value}/{row}", results, test):
            compared += 1
            too_many = len(comparison.differing) > _TOLERANCE.value * len(comparison.kept)
            wrong += too_many
            print(f"  {comparison}{'  DIFFERS' if too_many else ''}", flush=True)
    print(f"{compared} results compared in {(time.monotonic() - started) / 60:.1f} minutes")
    if wrong:
        print(f"{wrong} of them differ on more than {_TOLERANCE.value:.0%} of their images")
        raise SystemExit(EXIT_DIFFERS)


def rows_of(results: Path) -> list[str]:
    """The rows that are published for --dataset.

    Raises:
      InputError: there are none.
    """
    folder = results / published.SCALE / _DATASET.value
    rows = sorted(file.parent.name for file in folder.glob("*/recipe.json"))
    if not rows:
        raise InputError(f"{folder} holds no published runs: name another --results_dir")
    return rows


def checked(name: str, results: Path, test: Images) -> list[Comparison]:
    """What the attacks on one published model do afresh.

    Raises:
      InputError: the model or a result is missing, damaged or of something else.
    """
    model = published.load_published(name, folder=results)
    run = published.published_run(name, folder=results)
    return [
        published.attack_again(model, test, record, **extent(record))
        for record in published.records_of(run)
    ]


def extent(record: AttackRecord) -> dict[str, int]:
    """How much of a result is made afresh: all of `strong` on some images, one restart of others.

    A record has as many restarts as its image that stands longest has seen.
    """
    if record.settings["attack"]["target"] == "rotate":
        return {"restarts": int(np.max(record.next_restart)), "num_images": _STRONG.value}
    return {"restarts": 1, "num_images": len(record.labels)}


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
