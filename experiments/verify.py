r"""Attacks the published models again, and compares with the published results image by image.

    python -m experiments.verify
    python -m experiments.verify --rows=clp,lsq --strong_images=50

For each run in <results_dir>/published/<dataset>/, it checks the model's hash and that the tables'
numbers follow from the results, and repeats the first restart of each attack on all its images, and
all restarts of `strong` on the first --strong_images.

Another processor may round differently, which changes the outcome of a few images: differences are
printed, and up to --tolerance of the images may differ. On a processor without bfloat16
instructions the attacks are crafted in float32, and accuracies are compared instead, with the same
tolerance.
Exit codes: 1 for a larger difference, 2 for missing or damaged results.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from alp_repro import shipped
from alp_repro.attacks import Ensemble, resolve_dtype
from alp_repro.data import DATASETS, Images, load_split
from alp_repro.errors import InputError
from alp_repro.evaluation import published
from alp_repro.reporting import stored_tables
from alp_repro.tasks import Status

from .console import app
from .console.display import Display, attack_progress
from .running import devices
from .running.estimates import VerificationTimeLeft

if TYPE_CHECKING:
    import keras

    from alp_repro.attacks import Dtype
    from alp_repro.evaluation import Progress
    from alp_repro.evaluation.published import Comparison
    from alp_repro.evaluation.record import AttackRecord

FLAGS = flags.FLAGS
_RESULTS = flags.DEFINE_string("results_dir", None, "Folder of the published results.")
_DATASET = flags.DEFINE_enum("dataset", "mnist", list(DATASETS), "Data set.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "TFDS folder (default: $ALP_REPRO_DATA_DIR or .tfds)."
)
_ROWS = flags.DEFINE_list("rows", [], "Rows to check. Default: all.")
_STRONG = flags.DEFINE_integer(
    "strong_images", 200, "Number of images to attack with `strong`.", lower_bound=1
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance", 0.02, "Share of a result's images that may differ.", lower_bound=0, upper_bound=1
)
devices.define_flags()

EXIT_DIFFERS = 1


def main(_: list[str]) -> int:
    """Check every row; return 1 if one differs by more than the tolerance."""
    results = Path(_RESULTS.value) if _RESULTS.value else shipped.folder("results")
    rows = _ROWS.value or rows_of(results)
    records = {
        row: stored_tables.check_published(results, f"{_DATASET.value}/{row}") for row in rows
    }
    devices.choose()  # after the checks above, which need no TensorFlow
    test = load_split(_DATASET.value, "test", data_dir=_DATA_DIR.value)
    dtype: Dtype | None = None if resolve_dtype("auto") == "bfloat16" else "float32"
    if dtype:
        print(
            "this processor has no bfloat16 instructions: attacks are crafted in float32, and "
            "accuracies are compared instead of single images"
        )
    started, wrong, compared = time.monotonic(), 0, 0
    clock = VerificationTimeLeft(
        sum(gradients_of(record) for several in records.values() for record in several)
    )
    with Display(clock.left) as display:
        for row, several in records.items():
            display.print(f"{row}:")
            name = f"{_DATASET.value}/{row}"
            model = published.model_of(published.published_run(name, folder=results), several)
            for comparison in repeated(name, model, several, test, dtype, clock, display):
                compared += 1
                differs = not comparison.agrees(_TOLERANCE.value)
                wrong += differs
                display.print(f"  {comparison}{'  DIFFERS' if differs else ''}")
    print(f"{compared} results compared in {(time.monotonic() - started) / 60:.1f} minutes")
    if wrong:
        print(f"{wrong} of them differ on more than {_TOLERANCE.value:.0%} of their images")
        return EXIT_DIFFERS
    return 0


def rows_of(results: Path) -> list[str]:
    """Return the published rows of --dataset.

    Raises:
      InputError: there are none.
    """
    folder = results / published.SCALE / _DATASET.value
    rows = sorted(file.parent.name for file in folder.glob("*/recipe.json"))
    if not rows:
        raise InputError(f"{folder} has no published runs: choose another --results_dir")
    return rows


def repeated(
    name: str,
    model: keras.Model,
    records: Sequence[AttackRecord],
    test: Images,
    dtype: Dtype | None,
    clock: VerificationTimeLeft,
    display: Display,
) -> Iterator[Comparison]:
    """Repeat the attacks on one published model, and yield the comparisons.

    Args:
      name: of the model, in the display.
      model, records: the published ones.
      test: the test split.
      dtype: to craft in; None: that of each result.
      clock, display: told of the progress.

    Raises:
      InputError: a result's images are not those of the test split.
    """
    for record in records:

        def report(progress: Progress) -> None:
            clock.report(progress)
            display.report_status(name, Status(attack_progress(progress)))

        # Attacks in float32 stay so everywhere.
        crafting_dtype = dtype if record.settings["attack"]["dtype"] != "float32" else None
        yield published.rerun_attack(
            model, test, record, **extent(record), dtype=crafting_dtype, report=report
        )
        clock.ended(gradients_of(record))
    display.ended(name)


def gradients_of(record: AttackRecord) -> int:
    """Return the number of gradients that repeating a result takes, if the same images break."""
    return published.rerun_gradients(record, **extent(record))


def extent(record: AttackRecord) -> dict[str, int]:
    """Return how much of a result to repeat: all of `strong` on some images, or one restart.

    A record has as many restarts as the image that survived longest.
    """
    if isinstance(record.attack, Ensemble):
        return {"restarts": int(np.max(record.next_restart)), "num_images": _STRONG.value}
    return {"restarts": 1, "num_images": len(record.labels)}


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
