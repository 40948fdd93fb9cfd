"""The restart loop: one attack, many restarts, until each image is broken or the budget is spent.

A work item is (image, restart); its outcome depends on (model, attack, seed, image index, restart)
alone. Items fill batches of one static shape in restart order, an image leaves when it is broken,
and the state between two batches is three small arrays, so a run can stop anywhere and go on with
the same result. (Float32 kernels may round differently for another batch *shape*: that is why the
shape never changes within a run and is part of a result's settings.)
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro.attacks.programs import BatchOutcome, attack_program
from alp_repro.attacks.settings import Attack, float32_copy
from alp_repro.runs import note, reading_arrays, write_arrays

SAVE_SECONDS = 10.0
_Z95 = 1.959963984540054  # 97.5% quantile of the normal distribution


@dataclasses.dataclass(frozen=True, eq=False)
class AttackRecord:
    """What restarts of one attack did to a set of images; complete or on its way.

    Attributes:
      labels: int32 [n], true classes.
      indices: int64 [n], position of each image in its data set's split.
      clean_predictions: int32 [n], of the clean images.
      first_break: int32 [n], the first restart that broke the image, -1: none yet.
      next_restart: int32 [n], restarts already run on the image.
      settings: what makes this result: attack, seed, batch, hashes of model and images.
      sessions: provenance of every process that worked on it.
      losses: float32 [n, restarts], cross-entropy of the true label after every restart, NaN where
        none was run; None unless they were asked for.
      broken: bool [n, restarts] beside `losses`.
      adversarial: float32 like the images: the image that broke it; zeros where none did; None
        unless asked for.
    """

    labels: np.ndarray
    indices: np.ndarray
    clean_predictions: np.ndarray
    first_break: np.ndarray
    next_restart: np.ndarray
    settings: dict[str, Any]
    sessions: list[dict[str, Any]]
    losses: np.ndarray | None = None
    broken: np.ndarray | None = None
    adversarial: np.ndarray | None = None

    @property
    def clean_correct(self) -> np.ndarray:
        """Bool [n]: the clean image is classified correctly."""
        return self.clean_predictions == self.labels

    @property
    def clean_accuracy(self) -> float:
        """Share of clean images that are classified correctly."""
        return float(np.mean(self.clean_correct))

    @property
    def standing(self) -> np.ndarray:
        """Bool [n]: no restart so far has broken the image."""
        return self.first_break < 0

    def complete_to(self, restarts: int) -> bool:
        """Whether every image is broken or has seen so many restarts."""
        wanted = self.standing if self.losses is None else np.ones_like(self.standing)
        return bool(np.all(self.next_restart[wanted] >= restarts))

    def restarts_spent(self, restarts: int) -> np.ndarray:
        """Int [n]: restarts an image needed of so many: up to the one that broke it, or all."""
        self._check_complete(restarts)
        broken = ~self.standing & (self.first_break < restarts)
        return np.where(broken, self.first_break + 1, restarts)

    def accuracy_at(self, restarts: int) -> float:
        """Adversarial accuracy after so many restarts: the share that none of them broke.

        Raises:
          ValueError: the record does not reach so far.
        """
        return self.robust_at(restarts) / len(self.labels)

    def robust_at(self, restarts: int) -> int:
        """How many images none of the first `restarts` restarts broke."""
        self._check_complete(restarts)
        return int(np.sum(self.standing | (self.first_break >= restarts)))

    def interval_at(self, restarts: int) -> tuple[float, float]:
        """95% Wilson interval of `accuracy_at`."""
        return wilson_interval(self.robust_at(restarts), len(self.labels))

    def mean_accuracy(self, restarts: int) -> float:
        """Mean over restarts of the accuracy that one alone leaves; needs recorded losses."""
        if self.broken is None:
            raise ValueError("no losses were recorded, so broken images were not attacked again")
        self._check_complete(restarts)
        return float(1.0 - np.mean(self.broken[:, :restarts]))

    def _check_complete(self, restarts: int) -> None:
        if not self.complete_to(restarts):
            raise ValueError(f"the record does not reach restart {restarts}")


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a restart loop is; `seconds_left` assumes that no further image breaks."""

    standing: int
    images: int
    restarts_done: int
    restarts: int
    gradients_per_second: float
    seconds_left: float


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927, without continuity correction)."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no proportion")
    p, z2 = successes / trials, _Z95**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    # At the ends the bound is 0 or 1 exactly; rounding must not push it across.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def attack_with_restarts(
    model: keras.Model,
    images: np.ndarray,
    record: AttackRecord,
    *,
    attack: Attack,
    seed: int,
    batch_size: int,
    image_index: np.ndarray | None = None,
    strategy: tf.distribute.Strategy | None = None,
    jit_compile: bool = False,
    save: Callable[[AttackRecord], None] = lambda record: None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> AttackRecord:
    """Runs restarts until `record` is complete to `attack.restarts`.

    Args:
      model: float32 images in [0, 1] to logits.
      images: float32 [n, height, width, channels] in [0, 1].
      record: fresh (`new_record`) or from an earlier call with the same settings.
      attack: settings; `restarts` may be more than the record has seen.
      seed: of the starting points and random targets.
      batch_size: work items in one batch and replica.
      image_index: int [n], what an image's random numbers depend on; default 0 … n - 1. A shard of
        a set gives its images' places in the whole.
      strategy: of `tf.distribute`: each replica takes a share of the work list.
      jit_compile: XLA.
      save: called every SAVE_SECONDS, at the end, and when the loop is interrupted.
      report: called after each batch.
    """
    loop = _Loop(model, images, record, attack, image_index)
    if record.complete_to(attack.restarts):
        return record
    replicas = strategy.num_replicas_in_sync if strategy else 1
    program = attack_program(
        float32_model(model), attack=attack, image_shape=images.shape[1:], batch_size=batch_size,
        seed=seed, strategy=strategy, jit_compile=jit_compile,
    )  # fmt: skip
    started = saved = time.monotonic()
    try:
        while (items := loop.next_items(batch_size * replicas)) is not None:
            loop.advance(items, program(*loop.inputs(items)))
            now = time.monotonic()
            report(loop.progress(now - started))
            if now - saved > SAVE_SECONDS:
                save(loop.record)
                saved = time.monotonic()
    finally:
        save(loop.record)
    return loop.record


def new_record(
    *,
    labels: np.ndarray,
    indices: np.ndarray,
    clean_predictions: np.ndarray,
    settings: dict[str, Any],
    record_losses: bool = False,
    image_shape: tuple[int, ...] | None = None,
) -> AttackRecord:
    """A record before the first restart.

    Args:
      labels, indices, clean_predictions, settings: see `AttackRecord`.
      record_losses: also run, and note, every restart of images that are already broken.
      image_shape: keep the images that broke, of this shape; None: do not.
    """
    n = len(labels)
    return AttackRecord(
        labels=labels.astype(np.int32),
        indices=indices.astype(np.int64),
        clean_predictions=clean_predictions.astype(np.int32),
        first_break=np.full(n, -1, np.int32),
        next_restart=np.zeros(n, np.int32),
        settings=settings,
        sessions=[],
        losses=np.empty((n, 0), np.float32) if record_losses else None,
        broken=np.empty((n, 0), bool) if record_losses else None,
        adversarial=np.zeros((n, *image_shape), np.float32) if image_shape else None,
    )


@dataclasses.dataclass(frozen=True)
class _Items:
    """A batch of work items; those past `count` only fill it up and are ignored."""

    image: np.ndarray
    restart: np.ndarray
    count: int


class _Loop:
    """The host's side of the loop: which items come next, and what their outcomes change."""

    def __init__(
        self,
        model: keras.Model,
        images: np.ndarray,
        record: AttackRecord,
        attack: Attack,
        image_index: np.ndarray | None,
    ) -> None:
        self._images, self._attack = images, attack
        self._bounds = exact_bounds(images, attack.eps)
        self._index = np.arange(len(images)) if image_index is None else image_index
        self._items_done = 0
        self.record = _with_room(record, attack.restarts)

    def next_items(self, count: int) -> _Items | None:
        """The first items in restart order that are still to do, None when there are none."""
        wanted = self.record.next_restart < self._attack.restarts
        if self.record.losses is None:
            wanted &= self.record.standing
        if not wanted.any():
            return None
        images: list[np.ndarray] = []
        restarts: list[np.ndarray] = []
        restart, found = int(self.record.next_restart[wanted].min()), 0
        while found < count and restart < self._attack.restarts:
            due = np.flatnonzero(wanted & (self.record.next_restart <= restart))[: count - found]
            images.append(due)
            restarts.append(np.full(len(due), restart))
            found += len(due)
            restart += 1
        filler = [np.full(count - found, images[0][0])], [np.full(count - found, restarts[0][0])]
        return _Items(
            np.concatenate(images + filler[0]), np.concatenate(restarts + filler[1]), found
        )

    def inputs(self, items: _Items) -> tuple[np.ndarray, ...]:
        """What the program takes for these items."""
        lower, upper = self._bounds
        return (
            self._images[items.image], self.record.labels[items.image],
            self._index[items.image].astype(np.int64), items.restart.astype(np.int32),
            lower[items.image], upper[items.image],
        )  # fmt: skip

    def advance(self, items: _Items, outcome: BatchOutcome) -> None:
        """Takes the outcomes in; one assignment at the end, so that an interrupt tears nothing."""
        old = self.record
        image, restart = items.image[: items.count], items.restart[: items.count]
        hit = outcome.broken[: items.count]
        next_restart, first = old.next_restart.copy(), old.first_break.copy()
        np.maximum.at(next_restart, image, (restart + 1).astype(np.int32))
        never = np.iinfo(np.int32).max
        first = np.where(first < 0, never, first)
        np.minimum.at(first, image[hit], restart[hit].astype(np.int32))
        changed: dict[str, Any] = {}
        if old.losses is not None and old.broken is not None:
            # Cells past `next_restart` mean nothing, so filling them in place tears nothing.
            old.losses[image, restart] = outcome.losses[: items.count]
            old.broken[image, restart] = hit
        if old.adversarial is not None:
            new = hit & (restart == first[image]) & (old.first_break[image] < 0)
            adversarial = old.adversarial.copy()
            adversarial[image[new]] = outcome.adversarial[: items.count][new]
            changed["adversarial"] = adversarial
        self._items_done += items.count
        self.record = dataclasses.replace(
            old,
            next_restart=next_restart,
            first_break=np.where(first == never, -1, first).astype(np.int32),
            **changed,
        )

    def progress(self, seconds: float) -> Progress:
        """The state after `seconds` of work."""
        record, restarts = self.record, self._attack.restarts
        todo = np.ones_like(record.standing) if record.losses is not None else record.standing
        left = int(np.maximum(restarts - record.next_restart[todo], 0).sum())
        done = int(record.next_restart[todo].min()) if todo.any() else restarts
        return Progress(
            standing=int(record.standing.sum()),
            images=len(record.labels),
            restarts_done=min(done, restarts),
            restarts=restarts,
            gradients_per_second=self._items_done * self._attack.nb_iter / seconds,
            seconds_left=left * seconds / self._items_done,
        )


def exact_bounds(images: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest float32 pixels in the ε-ball and in [0, 1], exactly.

    Args:
      images: float32, in [0, 1].
      eps: float64 radius; |bound - image| ≤ eps holds without rounding.
    """
    wide = images.astype(np.float64)
    lower = np.maximum(wide - eps, 0.0).astype(np.float32)
    upper = np.minimum(wide + eps, 1.0).astype(np.float32)
    # Rounding to float32 may have gone outwards by one step at the most.
    lower = np.where(wide - lower > eps, np.nextafter(lower, np.float32(2)), lower)
    upper = np.where(upper - wide > eps, np.nextafter(upper, np.float32(-1)), upper)
    return lower, upper


def float32_model(model: keras.Model) -> keras.Model:
    """The model itself, or a float32 copy of one that computes in another dtype."""
    if _computes_in_float32(model):
        return model
    return float32_copy(model)


def _computes_in_float32(layer: keras.Layer) -> bool:
    """Whether a layer does, and every layer in it: a model's own dtype says nothing of theirs."""
    inner = getattr(layer, "layers", ())
    return layer.compute_dtype == "float32" and all(_computes_in_float32(one) for one in inner)


def _with_room(record: AttackRecord, restarts: int) -> AttackRecord:
    """The record with columns for so many restarts, where it keeps losses."""
    if record.losses is None or record.broken is None or record.losses.shape[1] >= restarts:
        return record
    more = ((0, 0), (0, restarts - record.losses.shape[1]))
    return dataclasses.replace(
        record,
        losses=np.pad(record.losses, more, constant_values=np.nan),
        broken=np.pad(record.broken, more),
    )


_ARRAYS = ("labels", "indices", "clean_predictions", "first_break", "next_restart")
_OPTIONAL = ("losses", "broken", "adversarial")


def save_record(path: Path, record: AttackRecord) -> None:
    """Writes a record as `.npz`, atomically; settings and sessions are JSON text in it."""
    arrays = {name: getattr(record, name) for name in _ARRAYS}
    arrays |= {name: v for name in _OPTIONAL if (v := getattr(record, name)) is not None}
    write_arrays(path, arrays, settings=record.settings, sessions=record.sessions)


def load_record(path: Path) -> AttackRecord:
    """Reads a record.

    Raises:
      InputError: the file is truncated or no record.
    """
    with reading_arrays(path, what="attack result") as file:
        arrays = {name: file[name] for name in (*_ARRAYS, *_OPTIONAL) if name in file.files}
        return AttackRecord(
            **arrays, settings=note(file, "settings"), sessions=note(file, "sessions")
        )
