"""The restart loop: one attack, many restarts, until each image is broken or the budget is spent.

A work item is (image, restart); its outcome depends on (model, attack, seed, image index, restart)
alone. Items fill batches of one static shape in restart order, an image leaves when it is broken,
and the state between two batches is three small arrays, so a run can stop anywhere and go on with
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
from alp_repro.attacks.phases import Ensemble, ensemble_of
from alp_repro.errors import InputError
from alp_repro.evaluation.record import AttackRecord
from alp_repro.models.copies import float32_model

if TYPE_CHECKING:
    import keras

SAVE_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a restart loop is; `seconds_left` assumes that no further image breaks.

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
class Items:
    """A batch of work items; those past `count` only fill it up and are ignored."""

    image: np.ndarray
    restart: np.ndarray
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """What executors need to know of an attack on a set of images.

    Attributes:
      model: float32 images in [0, 1] to logits.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      attack: its restarts are all that will be asked for.
      seed: of the starting points and random targets.
      execution: batch size, replicas, XLA; batches are no larger than all the work.
      image_index: int [n], what an image's random numbers depend on; None: its place.
      keep_adversarial: an outcome has the images that broke, too.
    """

    model: keras.Model
    images: np.ndarray
    labels: np.ndarray
    attack: Ensemble
    seed: int
    execution: Execution
    image_index: np.ndarray | None = None
    keep_adversarial: bool = False


# What computes the batches of `Work`: asks for them one by one, and yields the outcomes in any
# order, each with its batch's number from 0.
Executor = Callable[[Work, Callable[[], Items | None]], Iterator[tuple[int, BatchOutcome]]]


def in_this_process(
    work: Work, next_items: Callable[[], Items | None]
) -> Iterator[tuple[int, BatchOutcome]]:
    """Yield the outcomes of one batch after the other, computed here; an `Executor`."""
    from alp_repro.attacks.programs import phases_program

    program = phases_program(
        float32_model(work.model),
        work.images,
        work.labels,
        attack=work.attack,
        seed=work.seed,
        execution=work.execution,
        image_index=work.image_index,
    )
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
    """Runs restarts until `record` is complete to `attack.restarts`.

    Args:
      model: float32 images in [0, 1] to logits.
      images: float32 [n, height, width, channels] in [0, 1].
      record: fresh (`new_record`) or from an earlier call with the same settings. What it keeps of
        losses and adversarial images is written in place.
      attack: an attack or phases of some; `restarts` may be more than the record has seen.
      seed, execution: see `Work`.
      image_index: int [n], what an image's random numbers depend on; default 0 … n - 1. A shard of
        a set gives its images' places in the whole.
      save: called every SAVE_SECONDS, at the end, and when the loop is interrupted.
      report: called after each batch.
      executor: what computes the batches. Outcomes may come in any order, since an item's depends
        on nothing else; the record takes them in restart order.

    Raises:
      InputError: an adversarial image or its logits are not finite, so that there is no verdict.
    """
    if record.complete_to(attack.restarts):
        return _with_room(record, attack.restarts)
    attack = ensemble_of(attack)
    execution = execution.no_larger_than(len(images) * attack.restarts)
    keep = record.adversarial is not None
    work = Work(model, images, record.labels, attack, seed, execution, image_index, keep)
    loop = WorkList(record, attack)
    given: dict[int, Items] = {}
    numbers = itertools.count()

    def next_items() -> Items | None:
        items = loop.next_items(execution.items)
        if items is not None:
            given[next(numbers)] = items
        return items

    started = saved = time.monotonic()
    early: dict[int, BatchOutcome] = {}
    taken = 0
    try:
        for number, outcome in executor(work, next_items):
            loop.note_broken(given[number], outcome)
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
        loop.forget_unfinished()
        save(loop.record)
    tell_of_gradients(loop.record)
    return loop.record


def tell_of_gradients(record: AttackRecord) -> None:
    """Warns where gradients had entries that are not finite."""
    affected = record.nonfinite_gradients > 0
    if affected.any():
        _log.warning(
            "%d of %d images had gradients with entries that are not finite (in %d steps): these "
            "entries counted as 0, so the attack may be weaker than it looks",
            affected.sum(),
            len(affected),
            record.nonfinite_gradients.sum(),
        )


class WorkList:
    """The host's side of the loop: which items come next, and what their outcomes change.

    Several batches can be out at a time: `next_items` gives each item once, and `advance` takes the
    outcomes in, in the order in which the batches were given.
    """

    def __init__(self, record: AttackRecord, attack: Ensemble) -> None:
        self._attack = attack
        self._gradients_done = 0
        self.record = _with_room(record, attack.restarts)
        self._begun = self.record.next_restart.copy()
        self._broken = ~self.record.standing

    def next_items(self, count: int) -> Items | None:
        """The first items in restart order that are still to do, None when there are none now.

        All are of one phase. Under a budget, who goes on is known when the phases before are over
        and advanced. Of `count` items, or fewer where a phase has batches of its own.
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
        place = self._attack.phase_at(restart)
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
        return Items(
            np.concatenate(images + filler[0]), np.concatenate(restarts + filler[1]), found
        )

    def note_broken(self, items: Items, outcome: BatchOutcome) -> None:
        """Gives no further items of images that a batch has broken, before its turn to advance."""
        self._broken[items.image[: items.count][outcome.broken[: items.count]]] = True

    def advance(self, items: Items, outcome: BatchOutcome) -> None:
        """Takes the outcomes in; one assignment at the end, so that an interrupt tears nothing."""
        old = self.record
        image, restart = items.image[: items.count], items.restart[: items.count]
        hit = outcome.broken[: items.count]
        self.note_broken(items, outcome)
        never = np.iinfo(np.int32).max
        first = np.where(old.first_break < 0, never, old.first_break)
        np.minimum.at(first, image[hit], restart[hit].astype(np.int32))
        # What was begun before an earlier restart was known to break the image leaves no trace, so
        # that the record depends on no batch size and no number of workers.
        counts = (restart <= first[image]) | (old.losses is not None)
        self._check_finite(image[counts], restart[counts], outcome.finite[: items.count][counts])
        next_restart = old.next_restart.copy()
        np.maximum.at(next_restart, image[counts], (restart[counts] + 1).astype(np.int32))
        nonfinite = old.nonfinite_gradients.copy()
        seen = outcome.nonfinite_gradients[: items.count]
        np.add.at(nonfinite, image[counts], seen[counts])
        if old.losses is not None and old.broken is not None:
            # Cells past `next_restart` mean nothing, so filling them in place tears nothing.
            old.losses[image, restart] = outcome.losses[: items.count]
            old.broken[image, restart] = hit
        if old.adversarial is not None:
            # In place too: what stands beside an image that counts as standing means nothing.
            new = hit & (restart == first[image]) & (old.first_break[image] < 0)
            old.adversarial[image[new]] = outcome.adversarial[: items.count][new]
        closest = old.closest
        if closest is not None:
            early = counts & (restart < self._attack.judged_by)
            closest = closest.copy()
            np.maximum.at(closest, image[early], outcome.losses[: items.count][early])
        cost = self._attack.cost_of(restart + 1) - self._attack.cost_of(restart)
        self._gradients_done += int(cost.sum())
        self.record = dataclasses.replace(
            old,
            next_restart=next_restart,
            first_break=np.where(first == never, -1, first).astype(np.int32),
            nonfinite_gradients=nonfinite,
            closest=closest,
        )

    def forget_unfinished(self) -> None:
        """Takes out what an interrupt may have left of a batch that does not count."""
        if self.record.adversarial is not None:
            self.record.adversarial[self.record.standing] = 0.0

    def _check_finite(self, image: np.ndarray, restart: np.ndarray, finite: np.ndarray) -> None:
        if finite.all():
            return
        first = int(np.flatnonzero(~finite)[0])
        raise InputError(
            f"image {self.record.indices[image[first]]}, restart {restart[first]}: the adversarial "
            "image or its logits are not finite, so there is no verdict: a model with finite "
            "outputs for all images in [0, 1] is needed (what was found before is kept)"
        )

    def progress(self, seconds: float) -> Progress:
        """The state after `seconds` of work."""
        record, restarts = self.record, self._attack.restarts
        behind = record.missing(restarts) > 0
        left = record.gradients_missing(self._attack)
        # Under a budget those that have seen all that they may do not hold the others up.
        done = int(record.next_restart[behind].min()) if left else restarts
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
    """The record with columns for so many restarts, where it keeps losses."""
    if record.losses is None or record.broken is None or record.losses.shape[1] >= restarts:
        return record
    more = ((0, 0), (0, restarts - record.losses.shape[1]))
    return dataclasses.replace(
        record,
        losses=np.pad(record.losses, more, constant_values=np.nan),
        broken=np.pad(record.broken, more),
    )
