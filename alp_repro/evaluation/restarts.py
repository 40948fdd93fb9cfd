"""The restart loop: one attack, many restarts, until each image is broken or the budget is spent.

A work item is (image, restart); its outcome depends only on (model, attack, seed, image index,
restart). Items fill batches of one static shape in restart order, broken images are skipped, and
the state between two batches is three small arrays, so a run can stop anywhere and continue with
the same result. (Float32 kernels may round differently for another batch *shape*: that is why the
shape never changes within a run and is part of a result's settings.)
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.attacks.base import Attack
from alp_repro.attacks.batches import BatchOutcome, Execution
from alp_repro.attacks.phases import Ensemble, as_ensemble
from alp_repro.errors import InputError
from alp_repro.evaluation.record import AttackRecord
from alp_repro.models.copies import float32_model

if TYPE_CHECKING:
    import keras

SAVE_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a restart loop; `seconds_left` assumes that no further image breaks.

    `nonfinite_gradients` counts the steps whose gradient had entries that are not finite.
    """

    standing: int
    images: int
    restarts_done: int
    restarts: int
    gradients_per_second: float
    seconds_left: float
    nonfinite_gradients: int = 0


@dataclasses.dataclass(frozen=True)
class ItemBatch:
    """A batch of work items; those past `count` are padding and are ignored."""

    image: np.ndarray
    restart: np.ndarray
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class AttackJob:
    """An attack on a set of images, as executors need it.

    Attributes:
      model: float32 images in [0, 1] to logits.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      attack: with all restarts that will be run.
      seed: seeds the starting points and random targets.
      execution: batch size, replicas, XLA; batches are no larger than all the work.
      image_index: int [n], which seeds an image's random numbers; None: its position.
      keep_adversarial: outcomes include the adversarial images.
    """

    model: keras.Model
    images: np.ndarray
    labels: np.ndarray
    attack: Ensemble
    seed: int
    execution: Execution
    image_index: np.ndarray | None = None
    keep_adversarial: bool = False

    def program(self) -> Callable[[np.ndarray, np.ndarray], BatchOutcome]:
        """Compile the attack to a function of the images and restarts of a batch of items."""
        from alp_repro.attacks.programs import phases_program

        return phases_program(
            float32_model(self.model),
            self.images,
            self.labels,
            attack=self.attack,
            seed=self.seed,
            execution=self.execution,
            image_index=self.image_index,
        )


# Computes the batches of an `AttackJob`: requests them one by one, and yields the outcomes in any
# order, each with the number of its batch, from 0.
Executor = Callable[[AttackJob, Callable[[], ItemBatch | None]], Iterator[tuple[int, BatchOutcome]]]


def in_this_process(
    work: AttackJob, next_items: Callable[[], ItemBatch | None]
) -> Iterator[tuple[int, BatchOutcome]]:
    """Yield the outcomes of the batches in order, computed in this process; an `Executor`."""
    program = work.program()
    for number in itertools.count():
        items = next_items()
        if items is None:
            return
        yield number, program(items.image, items.restart)


def attack_with_restarts(
    model: keras.Model,
    images: np.ndarray,
    record: AttackRecord,
    *,
    attack: Attack | Ensemble,
    seed: int,
    execution: Execution,
    image_index: np.ndarray | None = None,
    save: Callable[[AttackRecord], None] = lambda record: None,
    report: Callable[[Progress], None] = lambda progress: None,
    executor: Executor = in_this_process,
) -> AttackRecord:
    """Run restarts until `record` is complete to `attack.restarts`.

    Args:
      model: float32 images in [0, 1] to logits.
      images: float32 [n, height, width, channels] in [0, 1].
      record: new (`new_record`) or from an earlier call with the same settings. Its losses and
        adversarial images, if it has any, are updated in place.
      attack: an attack or an ensemble; it may have more restarts than the record.
      seed, execution: see `AttackJob`.
      image_index: int [n], which seeds an image's random numbers; default 0 … n - 1. A shard of a
        set gives its images' positions in the whole set.
      save: called every SAVE_SECONDS, at the end, and when the loop is interrupted.
      report: called after each batch.
      executor: computes the batches. Outcomes may come in any order, since items are independent;
        the record takes them in restart order.

    Raises:
      InputError: an adversarial image or its logits are not finite.
    """
    if record.complete_to(attack.restarts):
        return _with_room(record, attack.restarts)
    attack = as_ensemble(attack)
    execution = execution.capped_at(len(images) * attack.restarts)
    keep = record.adversarial is not None
    work = AttackJob(model, images, record.labels, attack, seed, execution, image_index, keep)
    loop = WorkList(record, attack)
    given: dict[int, ItemBatch] = {}
    numbers = itertools.count()

    def next_items() -> ItemBatch | None:
        items = loop.next_items(execution.items)
        if items is not None:
            given[next(numbers)] = items
        return items

    started = saved = time.monotonic()
    early: dict[int, BatchOutcome] = {}
    taken = 0
    try:
        for number, outcome in executor(work, next_items):
            loop.skip_broken(given[number], outcome)
            early[number] = outcome
            while taken in early:
                loop.advance(given.pop(taken), early.pop(taken))
                taken += 1
            if not taken:
                continue
            now = time.monotonic()
            report(loop.progress(now - started))
            if now - saved > SAVE_SECONDS:
                save(loop.record)
                saved = time.monotonic()
    finally:
        loop.clear_unfinished()
        save(loop.record)
    warn_about_gradients(loop.record)
    return loop.record


def warn_about_gradients(record: AttackRecord) -> None:
    """Log a warning if gradients had entries that are not finite."""
    affected = record.nonfinite_gradients > 0
    if affected.any():
        _log.warning(
            "%d of %d images had gradients with non-finite entries (in %d steps): these entries "
            "counted as 0, so the attack may be weaker than it looks",
            affected.sum(),
            len(affected),
            record.nonfinite_gradients.sum(),
        )


class WorkList:
    """The host's side of the loop: chooses the next items and updates the record.

    Several batches can be in progress: `next_items` returns each item once, and `advance` takes the
    outcomes in the order in which the batches were returned.
    """

    def __init__(self, record: AttackRecord, attack: Ensemble) -> None:
        self._attack = attack
        self._gradients_done = 0
        self.record = _with_room(record, attack.restarts)
        self._begun = self.record.next_restart.copy()
        self._broken = ~self.record.standing

    def next_items(self, count: int) -> ItemBatch | None:
        """Return the next items in restart order, None if there are none at the moment.

        All are of one phase. With a budget, the images of a phase are known once the outcomes of
        the earlier phases are in. A batch has `count` items, or the phase's own batch size.
        """
        allowed = self.record.allowed(self._attack.restarts)
        wanted = self._begun < allowed
        if self.record.losses is None:
            wanted &= ~self._broken
        if not wanted.any():
            return None
        images: list[np.ndarray] = []
        restarts: list[np.ndarray] = []
        restart, found = int(self._begun[wanted].min()), 0
        place = int(self._attack.phase_at(restart))
        count = self._attack.phases[place].batch_size or count
        end = min(self._attack.end_of(place), int(allowed.max()))
        while found < count and restart < end:
            going_on = wanted & (self._begun <= restart) & (restart < allowed)
            due = np.flatnonzero(going_on)[: count - found]
            images.append(due)
            restarts.append(np.full(len(due), restart))
            found += len(due)
            restart += 1
        for due, begun in zip(images, restarts, strict=True):
            self._begun[due] = begun + 1
        filler = [np.full(count - found, images[0][0])], [np.full(count - found, restarts[0][0])]
        return ItemBatch(
            np.concatenate(images + filler[0]), np.concatenate(restarts + filler[1]), found
        )

    def skip_broken(self, items: ItemBatch, outcome: BatchOutcome) -> None:
        """Skip images that a batch has broken, even before its turn to advance."""
        self._broken[items.image[: items.count][outcome.broken[: items.count]]] = True

    def advance(self, items: ItemBatch, outcome: BatchOutcome) -> None:
        """Update the record, in one assignment so that an interrupt keeps it consistent."""
        old = self.record
        image, restart = items.image[: items.count], items.restart[: items.count]
        hit = outcome.broken[: items.count]
        self.skip_broken(items, outcome)
        never = np.iinfo(np.int32).max
        first = np.where(old.first_break < 0, never, old.first_break)
        np.minimum.at(first, image[hit], restart[hit].astype(np.int32))
        # Restarts that began before an earlier one was known to break the image do not count, so
        # that the record depends on neither the batch size nor the number of workers.
        counts = (restart <= first[image]) | (old.losses is not None)
        self._check_finite(image[counts], restart[counts], outcome.finite[: items.count][counts])
        next_restart = old.next_restart.copy()
        np.maximum.at(next_restart, image[counts], (restart[counts] + 1).astype(np.int32))
        nonfinite = old.nonfinite_gradients.copy()
        seen = outcome.nonfinite_gradients[: items.count]
        np.add.at(nonfinite, image[counts], seen[counts])
        if old.losses is not None and old.broken is not None:
            # Cells past `next_restart` are not valid yet, so an interrupt may leave them half done.
            old.losses[image, restart] = outcome.losses[: items.count]
            old.broken[image, restart] = hit
        if old.adversarial is not None:
            # In place too: the adversarial image of an unbroken image is not valid either.
            new = hit & (restart == first[image]) & (old.first_break[image] < 0)
            old.adversarial[image[new]] = outcome.adversarial[: items.count][new]
        best_loss = old.best_early_loss
        if best_loss is not None:
            early = counts & (restart < self._attack.runs_before_budget)
            best_loss = best_loss.copy()
            np.maximum.at(best_loss, image[early], outcome.losses[: items.count][early])
        cost = self._attack.cost_of(restart + 1) - self._attack.cost_of(restart)
        self._gradients_done += int(cost.sum())
        self.record = dataclasses.replace(
            old,
            next_restart=next_restart,
            first_break=np.where(first == never, -1, first).astype(np.int32),
            nonfinite_gradients=nonfinite,
            best_early_loss=best_loss,
        )

    def clear_unfinished(self) -> None:
        """Clear the adversarial images of a batch that was interrupted."""
        if self.record.adversarial is not None:
            self.record.adversarial[self.record.standing] = 0.0

    def _check_finite(self, image: np.ndarray, restart: np.ndarray, finite: np.ndarray) -> None:
        if finite.all():
            return
        first = int(np.flatnonzero(~finite)[0])
        raise InputError(
            f"image {self.record.indices[image[first]]}, restart {restart[first]}: the adversarial "
            "image or its logits are not finite: expected a model with finite logits for all "
            "images in [0, 1] (earlier results are saved)"
        )

    def progress(self, seconds: float) -> Progress:
        """Return the progress after `seconds` of work."""
        record, restarts = self.record, self._attack.restarts
        behind = record.missing(restarts) > 0
        left = record.gradients_missing(self._attack)
        # With a budget, images that have had all their restarts do not count as behind.
        done = int(record.next_restart[behind].min()) if behind.any() else restarts
        return Progress(
            standing=int(record.standing.sum()),
            images=len(record.labels),
            restarts_done=min(done, restarts),
            restarts=restarts,
            gradients_per_second=self._gradients_done / seconds,
            seconds_left=left * seconds / max(self._gradients_done, 1),
            nonfinite_gradients=int(record.nonfinite_gradients.sum()),
        )


def _with_room(record: AttackRecord, restarts: int) -> AttackRecord:
    """Return the record with columns for these restarts, if it has losses."""
    if record.losses is None or record.broken is None or record.losses.shape[1] >= restarts:
        return record
    more = ((0, 0), (0, restarts - record.losses.shape[1]))
    return dataclasses.replace(
        record,
        losses=np.pad(record.losses, more, constant_values=np.nan),
        broken=np.pad(record.broken, more),
    )
