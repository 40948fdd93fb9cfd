"""How long a table will take on this machine, from a few timed steps."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Hashable

import numpy as np
from absl import flags

from alp_repro import evaluation, training
from alp_repro.attacks import Attack
from alp_repro.evaluation import Progress
from alp_repro.reporting.tables import Column

from . import settings
from .devices import Devices
from .evaluation_run import evaluation_set
from .training_run import training_set

_TIMED_ITERATIONS = 5
_TIMED_BATCHES = 3


def tell(jobs: list[tuple[flags.FlagValues, list[Column]]], devices: Devices) -> None:
    """Prints an estimate for each row that is not trained, and the sum.

    The evaluation's part assumes that no image breaks: it is an upper bound.
    """
    total = 0.0
    evaluations: dict[Hashable, float] = {}  # rows of one architecture take the same time
    print("estimate (evaluation: if no image breaks):", flush=True)
    for values, columns in jobs:
        train = training_seconds(values)
        key = (values.model, values.model_width, values.num_images, tuple(columns))
        if key not in evaluations:
            evaluations[key] = evaluation_seconds(values, columns, devices)
        attack = evaluations[key]
        total += train + attack
        print(
            f"  {values.row}: {_duration(train)} training, {_duration(attack)} evaluation",
            flush=True,
        )
    print(f"  together: {_duration(total)}; it can be stopped and resumed at any time", flush=True)


def training_seconds(values: flags.FlagValues) -> float:
    """Duration of the whole training of a row."""
    data = training_set(values.dataset, values.data_dir)
    return training.estimate_seconds(settings.recipe(values), data)


def evaluation_seconds(values: flags.FlagValues, columns: list[Column], devices: Devices) -> float:
    """Duration of all attacks of a row, at the rate of a short one on an untrained model."""
    model = training.compiled_model(settings.recipe(values)).classifier
    batch = settings.eval_batch_size(values, gpu=devices.gpu)
    data = evaluation_set(values.dataset, min(batch, values.num_images), values.data_dir)
    images = np.resize(data.unit_scale, (batch, *data.images.shape[1:]))
    labels = np.resize(data.labels, batch)
    # A column with more restarts goes on where the one with fewer ended.
    attacks: dict[Attack, int] = {}
    for column in columns:
        attack = column.attack
        key = dataclasses.replace(attack, restarts=1)
        attacks[key] = max(attacks.get(key, 0), attack.restarts)
    seconds = 0.0
    for attack, restarts in attacks.items():
        stamps: list[float] = []

        def stamp(_: Progress, stamps: list[float] = stamps) -> None:
            stamps.append(time.monotonic())

        evaluation.evaluate(
            model,
            images,
            labels,
            attack=dataclasses.replace(attack, nb_iter=_TIMED_ITERATIONS, restarts=_TIMED_BATCHES),
            batch_size=batch,
            record_losses=True,  # so that broken images are attacked again
            report=stamp,
        )
        # From the end of the first batch, which was traced and compiled, to that of the last.
        per_batch = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
        batches = -(-values.num_images * restarts // batch)
        seconds += per_batch / _TIMED_ITERATIONS * attack.nb_iter * batches
    return seconds


def _duration(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.1f} minutes"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"
