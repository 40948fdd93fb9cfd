"""Evaluations for processes of their own, which test_evaluation.py kills.

Importing this touches no device, so that a fork server can load it once and fork from there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import keras
import numpy as np

from alp_repro.attacks import PGD, BatchOutcome, WorkItems, programs
from alp_repro.evaluation import AttackRecord, evaluate, restarts
from experiments.console import app
from tests.small_model import CLASSES, IMAGE_SHAPE, small_images, small_labels, small_model

ATTACK = PGD(eps=0.05, eps_iter=0.02, nb_iter=3, restarts=30)
BATCH = 100
IMAGES = 1000


def stand_in_program(model: keras.Model, **options: Any) -> Callable[..., BatchOutcome]:
    """What `attack_program` gives, without TensorFlow: a function of (image, restart)."""

    def program(items: WorkItems) -> BatchOutcome:
        mixed = (items.image_index * 2_654_435_761 + items.restart * 40_503) % 10_007
        share = (mixed / 10_007).astype(np.float32)
        pixels = items.lower + (items.upper - items.lower) * share[:, None, None, None]
        finite, none = np.ones(len(mixed), bool), np.zeros(len(mixed), np.int32)
        return BatchOutcome(mixed < 500, share, pixels, finite, none)

    return program


def work(folder: str, reports: Connection | None = None, pause: float = 0.0) -> AttackRecord:
    """Many images and the stand-in program; saves, and sends one report, after each batch."""
    restarts.SAVE_SECONDS = -1.0
    programs.attack_program = stand_in_program
    model = keras.Sequential(
        [keras.Input(IMAGE_SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    )
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    return evaluate(
        model,
        small_images(IMAGES),
        np.zeros(IMAGES, np.int32),
        attack=ATTACK,
        batch_size=BATCH,
        folder=folder,
        record_losses=True,
        save_adversarial=True,
        report=_reporter(reports, pause),
    )


def work_as_a_binary(folder: str, reports: Connection, pause: float) -> None:
    """The real program under `console.app`, which handles signals; saves when it ends."""
    sys.argv = ["worker"]
    restarts.SAVE_SECONDS = 1e9
    app.run(lambda argv: real_work(folder, reports, pause) and None)


def real_work(folder: str, reports: Connection | None = None, pause: float = 0.0) -> AttackRecord:
    """The real attack on the small model."""
    model, images = small_model(), small_images(40)
    return evaluate(
        model,
        images,
        small_labels(model, images),
        attack=ATTACK,
        batch_size=16,
        folder=folder,
        record_losses=True,
        save_adversarial=True,
        report=_reporter(reports, pause),
    )


def _reporter(reports: Connection | None, pause: float) -> Callable[[restarts.Progress], None]:
    def report(progress: restarts.Progress) -> None:
        if reports is not None:
            reports.send(progress.standing)
        time.sleep(pause)

    return report
