"""Attacks a run's model as flag values describe: shared by `evaluate` and `table`."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
from absl import flags
from tqdm import tqdm

from alp_repro import evaluation, runs
from alp_repro.attacks import Attack
from alp_repro.data import Images, dataset_spec, load, prepare, store
from alp_repro.evaluation import AttackRecord, Progress

from . import settings
from .devices import Devices

_LINE_SECONDS = 60.0


@functools.lru_cache(maxsize=2)
def evaluation_set(dataset: str, num_images: int, data_dir: str | None) -> Images:
    """The paper's evaluation images; read once for all rows of a table."""
    return load.load_evaluation_set(dataset, num_images=num_images, data_dir=data_dir)


@functools.lru_cache(maxsize=8)
def evaluation_digest(dataset: str, data_dir: str | None, num_images: int) -> str | None:
    """What results of these evaluation images carry; None where the data set is not prepared.

    A reader of results prepares no data.
    """
    folder = prepare.prepared_folder(dataset_spec(dataset), store.chosen_data_dir(data_dir))
    if not store.is_prepared(folder):
        return None
    return evaluation_set(dataset, num_images, data_dir).digest


def attack_run(
    values: flags.FlagValues,
    run: runs.RunDir,
    model: keras.Model,
    attack: Attack,
    devices: Devices,
    *,
    data: Images | None = None,
    record_losses: bool = False,
    details: dict[str, Any] | None = None,
) -> AttackRecord:
    """The result of one attack on a run's model, computed as far as it is not on disk.

    The images are the paper's evaluation images unless others are given; losses are recorded where
    the values or the caller ask for it.
    """
    data = data or evaluation_set(values.dataset, values.num_images, values.data_dir)
    with ProgressLine(str(attack)) as report:
        return evaluation.evaluate(
            model,
            data.unit_scale,
            data.labels,
            attack=attack,
            seed=values.seed,
            batch_size=settings.eval_batch_size(values, gpu=devices.gpu),
            folder=run.attacks,
            indices=data.indices,
            record_losses=record_losses or values.record_losses,
            save_adversarial=values.save_adversarial,
            strategy=devices.strategy,
            jit_compile=devices.jit_compile,
            report=report,
            details={
                "device": devices.description,
                "data_source": data.source,
                "flags": values.flags_into_string().split(),
                **(details or {}),
            },
        )


class ProgressLine:
    """A progress bar on a terminal; elsewhere one line a minute.

    It tells the images still standing, the restarts done, gradients a second and the time left.
    """

    def __init__(self, title: str) -> None:
        """Shows nothing until the first batch is done."""
        self._title = title
        self._bar: tqdm | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Callable[[Progress], None]:
        """The function to call after each batch."""
        return self._report

    def __exit__(self, *_: object) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def _report(self, progress: Progress) -> None:
        state = (
            f"{progress.standing} of {progress.images} images standing, "
            f"{progress.gradients_per_second:,.0f} gradients/s"
        )
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(total=progress.restarts, desc=self._title, unit="restart")
            self._bar.set_postfix_str(state, refresh=False)
            self._bar.update(progress.restarts_done - self._bar.n)
        elif time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            print(
                f"{self._title}: restart {progress.restarts_done} of {progress.restarts}, {state}, "
                f"at most {progress.seconds_left / 60:.1f} minutes left",
                flush=True,
            )
