"""Estimates how long a table will take on this machine, from a few timed steps."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alp_repro import evaluation, training
from alp_repro.attacks import PGD
from alp_repro.attacks.phases import as_ensemble
from alp_repro.data import load
from alp_repro.errors import InputError

from ..console.display import duration
from ..flags import settings
from .evaluation_run import evaluation_set, image_count
from .training_run import training_set

if TYPE_CHECKING:
    from absl import flags

    from alp_repro.attacks import Attack, Ensemble
    from alp_repro.evaluation import Progress
    from alp_repro.reporting.tables import Column
    from alp_repro.training import Recipe

    from .devices import Devices
    from .rows import Job

_TIMED_ITERATIONS = 5
_TIMED_BATCHES = 3


class TimeLeft:
    """The remaining time of a table's rows: estimates, corrected by the rows that are done."""

    def __init__(self, seconds: Mapping[str, float], at_a_time: int) -> None:
        """Start with an estimate for each row; without any, no time is predicted."""
        self._estimates, self._at_a_time = seconds, at_a_time
        self._spent: dict[str, float] = {}
        self._rows: set[str] = set(seconds)
        self._started = time.monotonic()

    def order(self, jobs: Mapping[str, Job]) -> list[Job]:
        """Return the rows in the order to start them: longest first if several run at a time."""
        self._rows = set(jobs)
        if self._at_a_time == 1:
            return list(jobs.values())
        return sorted(jobs.values(), key=lambda job: -self._estimates.get(job.row, 0.0))

    def ended(self, row: str, seconds: float) -> None:
        """Record that a row has ended, and how long it took."""
        self._spent[row] = seconds

    def left(self, running: float = 0.0) -> str:
        """Return the remaining rows and time, at least `running` seconds, in words."""
        rows = self._rows - set(self._spent)
        if not rows:
            return "no rows left"
        counted = f"{len(rows)} of {len(self._rows)} rows left"
        seconds = self.seconds_left(time.monotonic() - self._started)
        if seconds is None:
            return counted
        seconds = max(seconds, running)
        return f"{counted}, " + (
            f"about {duration(seconds)}" if seconds else "longer than estimated"
        )

    def seconds_left(self, elapsed: float) -> float | None:
        """Return the remaining seconds, `elapsed` seconds after the start; None: no estimates."""
        if not self._estimates:
            return None
        estimated = sum(self._estimates[row] for row in self._spent)
        ratio = sum(self._spent.values()) / estimated if estimated else 1.0
        left = [ratio * s for row, s in self._estimates.items() if row not in self._spent]
        work = sum(self._spent.values()) + sum(left)
        # No row ends sooner than if it had been started first.
        return max(max([work / self._at_a_time, *left]) - elapsed, 0.0)


class VerificationTimeLeft:
    """The remaining time, from the gradients that the published records took."""

    def __init__(self, gradients: int) -> None:
        """Start with the number of gradients of all results."""
        self._left = gradients
        self._done, self._seconds, self._started = 0, 0.0, time.monotonic()
        self._now: Progress | None = None

    def report(self, progress: Progress) -> None:
        """Record the progress of the running attack."""
        self._now = progress

    def ended(self, gradients: int) -> None:
        """Record that a result of this many gradients has been compared."""
        self._left, self._done = self._left - gradients, self._done + gradients
        self._seconds = time.monotonic() - self._started

    def left(self, _running: float = 0.0) -> str:
        """Return the remaining time in words; "" before the first batch.

        Small last batches of one attack are slow, so it is the speed of all results so far that
        counts, as soon as there is one.
        """
        if self._now is None or not self._now.gradients_per_second:
            return ""
        if not self._done:
            return f"about {duration(self._left / self._now.gradients_per_second)} left"
        since = time.monotonic() - self._started - self._seconds
        seconds = self._left * self._seconds / self._done - since
        return f"about {duration(max(seconds, 1.0))} left"


def announce(jobs: list[Job], devices: Devices, *, at_a_time: int) -> TimeLeft:
    """Print an estimate for each row, and for all rows with `at_a_time` running in parallel.

    That of the evaluation assumes that no image breaks: it is an upper bound.
    """
    seconds: dict[str, float] = {}
    # Rows that differ only in settings without effect on the time are timed once.
    steps: dict[Hashable, float] = {}
    evaluations: dict[Hashable, dict[Attack | Ensemble, float]] = {}
    print("estimated time (evaluation: at most, if no image breaks):", flush=True)
    for job in jobs:
        values, recipe = job.values, settings.recipe(job.values)
        train = 0.0
        if not job.run.finished:
            for part, count in _parts_left(job, recipe):
                kind = _kind(part)
                if kind not in steps:
                    steps[kind] = step_seconds(values, part, devices)
                train += steps[kind] * count
        key = (values.model, values.model_width, values.num_images, tuple(job.columns))
        if key not in evaluations:
            evaluations[key] = attack_seconds(values, job.columns, devices)
        evaluate = sum(s * share_left(job, attack) for attack, s in evaluations[key].items())
        seconds[job.row] = train + evaluate
        print(
            f"  {job.row}: {duration(train)} training, {duration(evaluate)} evaluation", flush=True
        )
    clock = TimeLeft(seconds, at_a_time)
    together = clock.seconds_left(0.0) or 0.0
    rows = f", {at_a_time} rows at a time" if at_a_time > 1 else ""
    print(
        f"  total: {duration(together)}{rows}; you can stop and resume at any time",
        flush=True,
    )
    return clock


def _kind(recipe: Recipe) -> Hashable:
    """Return the settings that the duration of a training step depends on."""
    return (
        recipe.model,
        recipe.model_width,
        recipe.batch_size,
        recipe.dtype,
        recipe.attack if recipe.crafts else None,
        recipe.augment,
    )


def _parts_left(job: Job, recipe: Recipe) -> list[tuple[Recipe, int]]:
    """Return recipes whose steps all cost the same, each with its number of remaining steps."""
    whole, iterations = _steps_left(job, recipe), recipe.attack_warmup_nb_iter
    if iterations is None or not isinstance(recipe.attack, PGD):
        return [(recipe, whole.left)]
    warm = min(max(recipe.attack_warmup_steps - whole.done, 0), whole.left)
    plain = dataclasses.replace(recipe, attack_warmup_nb_iter=None)
    short = dataclasses.replace(recipe.attack, nb_iter=iterations)
    return [(dataclasses.replace(plain, attack=short), warm), (plain, whole.left - warm)]


class _Steps(NamedTuple):
    done: int
    left: int


def _steps_left(job: Job, recipe: Recipe) -> _Steps:
    """Return how many steps of a training are done, and how many remain."""
    images = recipe.train_images or len(training_set(recipe.dataset, job.values.data_dir).labels)
    log = job.run.log
    epochs = (
        len(log.read_text(encoding="utf-8").splitlines()) - 1
        if job.run.backup.exists() and log.exists()
        else 0
    )
    done = epochs * -(-images // recipe.batch_size)
    return _Steps(done, max(steps_of(recipe, images) - done, 0))


def steps_of(recipe: Recipe, images: int) -> int:
    """Return the number of steps of a whole training on `images` images."""
    return training.steps_of(recipe, steps_per_epoch=-(-images // recipe.batch_size))


def attacks_of(columns: list[Column]) -> list[Attack | Ensemble]:
    """Return the attacks of some columns, each with the most restarts of any column.

    A column with more restarts continues the result of the one with fewer.
    """
    found: dict[Attack | Ensemble, Attack | Ensemble] = {}
    for attack in sorted((column.attack for column in columns), key=lambda a: a.restarts):
        found[dataclasses.replace(attack, restarts=1)] = attack
    return list(found.values())


def share_left(job: Job, attack: Attack | Ensemble) -> float:
    """Return the share of an attack on a row that remains, if no further image breaks."""
    values = job.values
    try:
        record = evaluation.find_record(
            job.run,
            attack=attack,
            num_images=image_count(values),
            seed=values.seed,
            record_losses=values.record_losses,
        )
    except InputError:  # a damaged result: the row itself reports it, and the others continue
        record = None
    if record is None:
        return 1.0
    whole = attack.gradients * len(record.labels)
    return min(record.gradients_missing(attack) / whole, 1.0)


def step_seconds(values: flags.FlagValues, recipe: Recipe, devices: Devices) -> float:
    """Return the duration of one training step."""
    one = dataclasses.replace(recipe, epochs=1, train_images=recipe.batch_size)
    return training.estimate_seconds(
        one, training_set(values.dataset, values.data_dir), jit_compile=devices.jit_compile
    )


def attack_seconds(
    values: flags.FlagValues, columns: list[Column], devices: Devices
) -> dict[Attack | Ensemble, float]:
    """Return the duration of each attack of a row, from a short one on an untrained model."""
    model = training.compiled_model(settings.recipe(values)).classifier
    batch = settings.eval_batch_size(values, gpu=devices.gpu)
    count = image_count(values)
    data = evaluation_set(
        values.dataset, min(batch, count, load.EVALUATION_IMAGES), values.data_dir
    )
    images = np.resize(data.unit_scale, (batch, *data.images.shape[1:]))
    labels = np.resize(data.labels, batch)
    seconds: dict[Attack | Ensemble, float] = {}
    for attack in attacks_of(columns):
        stamps: list[float] = []
        first = as_ensemble(attack).attacks[0]
        timed = _shortened(first)

        def stamp(_: Progress, stamps: list[float] = stamps) -> None:
            stamps.append(time.monotonic())

        evaluation.evaluate(
            model,
            images,
            labels,
            attack=timed,
            batch_size=batch,
            record_losses=True,  # so that broken images are attacked again
            report=stamp,
        )
        # From the end of the first batch, which includes tracing and compiling, to the last's.
        per_batch = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
        one_run = int(first.cost_of(1))
        runs = attack.gradients / one_run
        per_run = per_batch * one_run / int(timed.cost_of(1))
        seconds[attack] = per_run * math.ceil(count * runs / batch)
    return seconds


def _shortened(attack: Attack) -> Attack:
    short: dict[str, Any] = {"restarts": _TIMED_BATCHES}
    short |= {"nb_iter": _TIMED_ITERATIONS} if "nb_iter" in attack.varied else {}
    return dataclasses.replace(attack, **short)
