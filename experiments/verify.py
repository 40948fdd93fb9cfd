r"""Attacks the published models afresh and compares with the published results, image by image.

    python -m experiments.verify
    python -m experiments.verify --rows=clp,lsq --strong_images=50

Of each run in <results_dir>/published/<dataset>/: the model's hash, that its results say what the
tables say, every attack's first restart on all its images, and every restart of `strong` on the
first --strong_images. A processor with other instructions rounds otherwise, which may turn a few
images: up to --tolerance of them are printed and let pass. On a processor that cannot multiply
bfloat16 the attacks are crafted in float32, and their accuracies are compared within the same
tolerance. More end with exit code 1, what is missing or damaged with 2.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
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
from .console.display import Display, duration
from .running import devices

if TYPE_CHECKING:
    from alp_repro.attacks import Dtype
    from alp_repro.evaluation import Progress
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


def main(_: list[str]) -> int:
    """Checks every row; returns 1 where one differs by more than the tolerance."""
    results = Path(_RESULTS.value) if _RESULTS.value else shipped.folder("results")
    rows = _ROWS.value or rows_of(results)
    for row in rows:
        stored_tables.check_published(results, f"{_DATASET.value}/{row}")
    devices.choose()  # what is refused is refused before TensorFlow is imported
    test = load_split(_DATASET.value, "test", data_dir=_DATA_DIR.value)
    dtype: Dtype | None = None if resolve_dtype("auto") == "bfloat16" else "float32"
    if dtype:
        print(
            "this processor does not multiply bfloat16: attacks are crafted in float32, and "
            "accuracies are compared, not single images"
        )
    started, wrong, compared = time.monotonic(), 0, 0
    clock = Clock([f"{_DATASET.value}/{row}" for row in rows], results)
    with Display(clock.left) as display:
        for row in rows:
            display.print(f"{row}:")
            for comparison in checked(
                f"{_DATASET.value}/{row}", results, test, dtype, clock, display
            ):
                compared += 1
                differs = not comparison.agrees(_TOLERANCE.value)
                wrong += differs
                display.print(f"  {comparison}{'  DIFFERS' if differs else ''}")
    print(f"{compared} results compared in {(time.monotonic() - started) / 60:.1f} minutes")
    if wrong:
        print(f"{wrong} of them differ on more than {_TOLERANCE.value:.0%} of their images")
        return EXIT_DIFFERS
    return 0


class Clock:
    """How long the rest takes, by the gradients that the published records took."""

    def __init__(self, names: list[str], results: Path) -> None:
        """Read how much there is to do."""
        records = [
            record
            for name in names
            for record in published.records_of(published.published_run(name, folder=results))
        ]
        self._left = sum(published.gradients_again(r, **extent(r)) for r in records)
        self._now: Progress | None = None

    def report(self, progress: Progress) -> None:
        """Take note of the attack at work."""
        self._now = progress

    def ended(self, record: AttackRecord) -> None:
        """Take note that a record has been compared."""
        self._left -= published.gradients_again(record, **extent(record))

    def left(self, _running: float = 0.0) -> str:
        """Return the time that is left; empty before the first batch."""
        if self._now is None or not self._now.gradients_per_second:
            return ""
        seconds = max(self._left / self._now.gradients_per_second, self._now.seconds_left)
        return f"about {duration(seconds)} left"


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


def checked(
    name: str,
    results: Path,
    test: Images,
    dtype: Dtype | None,
    clock: Clock,
    display: Display,
) -> Iterator[Comparison]:
    """Yield what the attacks on one published model do afresh, crafted in `dtype` (None: theirs).

    Raises:
      InputError: the model or a result is missing, damaged or of something else.
    """
    model = published.load_published(name, folder=results)
    run = published.published_run(name, folder=results)
    for record in published.records_of(run):

        def report(progress: Progress) -> None:
            clock.report(progress)
            display.tell(name, Status(described(progress)))

        # Attacks in float32 stay so everywhere.
        crafted_as = dtype if record.settings["attack"]["dtype"] != "float32" else None
        yield published.attack_again(
            model, test, record, **extent(record), dtype=crafted_as, report=report
        )
        clock.ended(record)


def described(progress: Progress) -> str:
    """Return the state of an attack in a few words."""
    return (
        f"restart {min(progress.restarts_done + 1, progress.restarts)} of {progress.restarts}, "
        f"{progress.standing} of {progress.images} images standing"
    )


def extent(record: AttackRecord) -> dict[str, int]:
    """How much of a result is made afresh: all of `strong` on some images, one restart of others.

    A record has as many restarts as its image that stands longest has seen.
    """
    if isinstance(record.attack, Ensemble):
        return {"restarts": int(np.max(record.next_restart)), "num_images": _STRONG.value}
    return {"restarts": 1, "num_images": len(record.labels)}


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
