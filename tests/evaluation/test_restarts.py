"""The restart loop: exact whatever the batch, the order, the interruption and the replicas.

Float32 sums depend on the order in which a kernel adds, and TensorFlow's CPU kernels choose that
order by the shape of the batch when the sums are long. Seen with TensorFlow 2.21 on x86-64: LeNet,
64 images, ten steps at batch 1, 2, 7, 16 and 64: 54 of 64 losses differ in their last bits between
batch 1 and batch 2, and one of 64 adversarial images between batch 7 and batch 16. ResNet20-v2:
one of 64 between batch 7 and batch 16. With sums of up to 72 terms (`small_model`) nothing differs.
So the small model carries the tests across batch sizes, and LeNet those at one batch size. Where a
processor rounds another batch size otherwise for the small model too (AVX2 does), the probe of
`attacks.rounding` says so, and verdicts and losses are compared within a tolerance.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import (
    PGD,
    Attack,
    BatchOutcome,
    Execution,
    WorkItems,
    exact_bounds,
    programs,
    strong_attack,
)
from alp_repro.attacks.programs import attack_program
from alp_repro.attacks.rounding import Rounding, find_rounding
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, Progress, restarts, wilson_interval
from alp_repro.evaluation.record import new_record as begin
from alp_repro.evaluation.record_file import load_record, save_record
from alp_repro.evaluation.store import attack_settings
from alp_repro.models import build_model
from tests.marks import slow_unless
from tests.small_model import IMAGE_SHAPE

ATTACK = PGD(eps=0.05, eps_iter=0.02, nb_iter=3, restarts=50)
SEED = 3
_programs: dict[Any, Any] = {}


@pytest.fixture
def cached_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program is traced once for all tests; restarts are not part of it."""

    def cached(model: keras.Model, *, attack: Attack, **options: Any) -> Any:
        key = (
            *(id(model), dataclasses.replace(attack, restarts=1)),
            *(options["execution"], options["seed"]),
        )
        if key not in _programs:
            _programs[key] = attack_program(model, attack=attack, **options)
        return _programs[key]

    monkeypatch.setattr(programs, "attack_program", cached)


def new_record(images: np.ndarray, labels: np.ndarray, *, losses: bool = False) -> AttackRecord:
    return begin(
        labels=labels,
        indices=np.arange(len(labels)),
        clean_predictions=labels,
        settings={},
        record_losses=losses,
        image_shape=images.shape[1:],
    )


def attacked(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int = 16,
    losses: bool = False,
    record: AttackRecord | None = None,
    count: int = ATTACK.restarts,
    strategy: tf.distribute.Strategy | None = None,
    **options: Any,
) -> AttackRecord:
    return restarts.attack_with_restarts(
        model,
        images,
        record or new_record(images, labels, losses=losses),
        attack=dataclasses.replace(ATTACK, restarts=count),
        seed=SEED,
        execution=Execution(batch_size=batch_size, strategy=strategy),
        **options,
    )


@pytest.fixture
def reference(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, cached_programs: None
) -> AttackRecord:
    return attacked(model, images, labels)


def assert_same(found: AttackRecord, expected: AttackRecord) -> None:
    """All of a record but its provenance, however far a batch ran ahead of a break."""
    np.testing.assert_array_equal(found.first_break, expected.first_break)
    np.testing.assert_array_equal(found.next_restart, expected.next_restart)
    np.testing.assert_array_equal(found.nonfinite_gradients, expected.nonfinite_gradients)
    np.testing.assert_array_equal(found.adversarial, expected.adversarial)
    for count in (1, 7, ATTACK.restarts):
        np.testing.assert_array_equal(found.restarts_spent(count), expected.restarts_spent(count))
    if expected.losses is not None:
        np.testing.assert_array_equal(found.losses, expected.losses)
        np.testing.assert_array_equal(found.broken, expected.broken)


def rounding_of(model: keras.Model, batch_size: int) -> Rounding:
    return find_rounding(model, model, image_shape=IMAGE_SHAPE, batch_size=batch_size)


def fingerprint(model: keras.Model, batch_size: int, count: int) -> str:
    """Return the rounding of batches that are no larger than all the work on forty images."""
    return rounding_of(model, min(batch_size, 40 * count)).fingerprint


# Exact


def test_the_reference_is_worth_comparing_with(reference: AttackRecord) -> None:
    """Images that stand, that break at once, and that break at restarts in between."""
    assert np.sum(reference.first_break < 0) >= 3
    assert np.sum(reference.first_break == 0) >= 3
    assert len(set(reference.first_break.tolist())) >= 8


@pytest.mark.parametrize("losses", [False, True])
@pytest.mark.parametrize("batch_size", slow_unless([7, 64, 1000], [1, 7, 64, 1000]))
def test_the_batch_size_changes_nothing(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    reference: AttackRecord,
    batch_size: int,
    losses: bool,
) -> None:
    count = 12 if losses else ATTACK.restarts
    expected = attacked(model, images, labels, losses=True, count=count) if losses else reference
    found = attacked(model, images, labels, batch_size=batch_size, losses=losses, count=count)
    assert rounding_of(model, batch_size).exact
    if fingerprint(model, batch_size, count) != fingerprint(model, 16, count):
        np.testing.assert_allclose(found.first_break >= 0, expected.first_break >= 0)
        if losses:
            np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-2, atol=1e-3)
    elif losses:
        np.testing.assert_array_equal(found.losses, expected.losses)
        np.testing.assert_array_equal(found.broken, expected.broken)
        np.testing.assert_array_equal(found.first_break, expected.first_break)
    else:
        assert_same(found, expected)


@pytest.mark.slow
def test_the_preset_is_as_exact(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, cached_programs: None
) -> None:
    """Rotating targets and noisy gradients do not know of the batch either."""
    attack = dataclasses.replace(strong_attack(0.02).phases[0].attack, nb_iter=4, restarts=19)
    order = np.random.default_rng(0).permutation(len(images))

    def found(batch_size: int, order: np.ndarray) -> AttackRecord:
        return restarts.attack_with_restarts(
            model,
            images[order],
            new_record(images[order], labels[order]),
            attack=attack,
            seed=SEED,
            execution=Execution(batch_size=batch_size),
            image_index=order,
        )

    expected = found(16, np.arange(len(images)))
    assert len(set(expected.first_break.tolist())) >= 4
    other = found(7, order)
    np.testing.assert_array_equal(other.first_break, expected.first_break[order])
    np.testing.assert_array_equal(other.adversarial, expected.adversarial[order])


@pytest.mark.parametrize("batch_size", [7, 64])
def test_the_order_of_the_images_changes_nothing(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    reference: AttackRecord,
    batch_size: int,
) -> None:
    order = np.random.default_rng(0).permutation(len(images))
    found = attacked(model, images[order], labels[order], batch_size=batch_size, image_index=order)
    back = np.argsort(order)
    np.testing.assert_array_equal(found.first_break[back], reference.first_break)
    np.testing.assert_array_equal(found.adversarial[back], reference.adversarial)


@pytest.mark.parametrize("shards", [2, 3, 40])
def test_shards_change_nothing(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    reference: AttackRecord,
    shards: int,
) -> None:
    parts = [
        attacked(model, images[part], labels[part], image_index=part)
        for part in np.array_split(np.arange(len(images)), shards)
    ]
    for name in ("first_break", "adversarial"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(reference, name))


@pytest.mark.parametrize("losses", [False, True])
@pytest.mark.parametrize("batch_size", slow_unless([64], [7, 64]))
def test_more_restarts_later_change_nothing(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    losses: bool,
    cached_programs: None,
) -> None:
    at_once = attacked(model, images, labels, batch_size=batch_size, losses=losses)
    first = attacked(model, images, labels, batch_size=batch_size, losses=losses, count=20)
    assert first.complete_to(20) and not first.complete_to(21)
    later = attacked(model, images, labels, batch_size=batch_size, losses=losses, record=first)
    assert_same(later, at_once)


def test_a_complete_record_comes_back_as_it_is(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, reference: AttackRecord
) -> None:
    def refuse(progress: Progress) -> None:
        raise AssertionError("nothing is left to do")

    assert attacked(model, images, labels, record=reference, report=refuse) is reference
    assert attacked(model, images, labels, record=reference, count=5, report=refuse) is reference


@pytest.mark.parametrize("losses", slow_unless([False], [False, True]))
def test_interrupted_after_any_batch_and_resumed(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, cached_programs: None, losses: bool
) -> None:
    run = functools.partial(attacked, model, images, labels, count=15, losses=losses)
    batches: list[Progress] = []
    undisturbed = run(report=batches.append)
    assert len(batches) >= 10
    for stop in range(1, len(batches) + 1):
        saved: list[AttackRecord] = []
        seen: list[Progress] = []

        def interrupt(progress: Progress, seen: Any = seen, stop: int = stop) -> None:
            seen.append(progress)
            if len(seen) == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(report=interrupt, save=saved.append)
        assert len(saved) == 1
        rest: list[Progress] = []
        resumed = run(record=saved[0], report=rest.append)
        assert len(rest) == len(batches) - stop  # nothing was done twice
        for name in ("next_restart", "first_break", "adversarial", "losses", "broken"):
            np.testing.assert_array_equal(getattr(resumed, name), getattr(undisturbed, name))


def test_interrupted_within_a_batch_and_resumed(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    reference: AttackRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cached = programs.attack_program

    def interrupted(*args: Any, **options: Any) -> Callable[..., BatchOutcome]:
        calls = []

        def run(items: WorkItems) -> BatchOutcome:
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return cached(*args, **options)(items)

        return run

    saved: list[AttackRecord] = []
    with monkeypatch.context() as patch:
        patch.setattr(programs, "attack_program", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attacked(model, images, labels, save=saved.append)
    assert_same(attacked(model, images, labels, record=saved[-1]), reference)


@pytest.mark.parametrize("batch_size", [7, 32])
def test_two_replicas_find_what_one_device_does(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    reference: AttackRecord,
    batch_size: int,
) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    found = attacked(model, images, labels, batch_size=batch_size, strategy=strategy)
    assert_same(found, reference)


@pytest.mark.slow
def test_two_replicas_that_craft_in_bfloat16_find_what_one_device_does(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    settings = dataclasses.replace(ATTACK, dtype="bfloat16", target="each", restarts=10)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    one, two = (
        restarts.attack_with_restarts(
            model,
            images,
            new_record(images, labels),
            attack=settings,
            seed=SEED,
            execution=Execution(batch_size=16, strategy=chosen),
        )
        for chosen in (None, strategy)
    )
    np.testing.assert_array_equal(two.first_break, one.first_break)
    np.testing.assert_array_equal(two.adversarial, one.adversarial)


@pytest.mark.slow
def test_lenet_is_exact_at_one_batch_shape() -> None:
    """Other neighbours in the batch, shards and replicas: the same bits (see the module's top)."""
    lenet = build_model("lenet", image_shape=(28, 28, 1), num_classes=10, width=8)
    images = np.random.default_rng(0).random((24, 28, 28, 1), dtype=np.float32)
    labels = np.argmax(lenet(images), axis=1).astype(np.int32)
    settings = PGD(eps=0.05, eps_iter=0.02, nb_iter=4, restarts=4)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def run(chosen: np.ndarray, strategy: Any = None) -> AttackRecord:
        return restarts.attack_with_restarts(
            lenet,
            images[chosen],
            new_record(images[chosen], labels[chosen], losses=True),
            attack=settings,
            seed=SEED,
            image_index=chosen,
            execution=Execution(batch_size=16, strategy=strategy),
        )

    whole = run(np.arange(24))
    shards = [run(part) for part in (np.arange(9), np.arange(9, 24)[::-1])]
    joined = np.concatenate([shards[0].losses, shards[1].losses[::-1]])
    np.testing.assert_array_equal(joined, whole.losses)
    np.testing.assert_array_equal(run(np.arange(24), strategy).losses, whole.losses)
    assert len(np.unique(whole.losses)) == 24 * 4


# The loop alone, with a program that needs no model


def stub_outcome(index: np.ndarray, restart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether (image, restart) breaks, and its loss: arbitrary functions of the two."""
    mixed = (index.astype(np.int64) * 2_654_435_761 + restart * 40_503) % 10_007
    threshold = np.array([0, 60, 500, 3000, 9000])[index % 5]
    return mixed < threshold, mixed.astype(np.float32)


@dataclasses.dataclass
class Stub:
    """Stands in for `attack_program` and keeps what it was asked for."""

    batches: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

    def __call__(self, model: Any, **options: Any) -> Callable[..., BatchOutcome]:
        def program(items: WorkItems) -> BatchOutcome:
            assert len({len(value) for value in items}) == 1
            index, restart = items.image_index, items.restart
            self.batches.append((index.copy(), restart.copy()))
            broken, losses = stub_outcome(index, restart)
            pixels = ((restart[:, None, None, None] + 1) / 1024 + 0 * items.images).astype(
                np.float32
            )
            finite, none = np.ones(len(index), bool), np.zeros(len(index), np.int32)
            return BatchOutcome(broken, losses, pixels, finite, none)

        return program


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    monkeypatch.setattr(programs, "attack_program", stub)
    return stub


def stub_run(
    model: keras.Model,
    n: int,
    count: int,
    batch_size: int,
    *,
    record: AttackRecord | None = None,
    losses: bool = False,
    **options: Any,
) -> AttackRecord:
    images, labels = np.zeros((n, 1, 1, 1), np.float32), np.zeros(n, np.int32)
    return attacked(
        model,
        images,
        labels,
        batch_size=batch_size,
        record=record,
        count=count,
        losses=losses,
        **options,
    )


def exhaustive(n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The original code's loop: every image, every restart."""
    index, restart = np.meshgrid(np.arange(n), np.arange(count), indexing="ij")
    broken, losses = stub_outcome(index, restart)
    return broken, losses


@pytest.mark.parametrize("trial", range(30))
def test_the_loop_finds_what_the_exhaustive_loop_does(
    model: keras.Model, stub: Stub, trial: int
) -> None:
    generator = np.random.default_rng(trial)
    n, count, batch_size = (int(generator.integers(1, high)) for high in (40, 60, 90))
    broken, losses = exhaustive(n, count)
    first = np.where(broken.any(axis=1), broken.argmax(axis=1), -1)

    record = stub_run(model, n, count, batch_size)
    np.testing.assert_array_equal(record.first_break, first)
    np.testing.assert_array_equal(record.standing, first < 0)
    np.testing.assert_array_equal(1024 * record.adversarial[:, 0, 0, 0], first + 1)
    for r in range(1, count + 1):
        robust = ~broken[:, :r].any(axis=1)
        assert record.accuracy_at(r) == robust.mean()
        assert record.interval_at(r) == wilson_interval(int(robust.sum()), n)
        spent = np.where(robust, r, broken.argmax(axis=1) + 1)
        np.testing.assert_array_equal(record.restarts_spent(r), spent)

    split = int(generator.integers(1, count + 1))
    early = stub_run(model, n, split, batch_size, losses=True)
    full = stub_run(model, n, count, int(generator.integers(1, 90)), record=early)
    np.testing.assert_array_equal(full.first_break, first)
    np.testing.assert_array_equal(full.losses, losses)
    np.testing.assert_array_equal(full.broken, broken)
    assert full.mean_accuracy(count) == pytest.approx(1 - broken.mean())


@pytest.mark.parametrize(("n", "count", "batch_size"), [(23, 40, 10), (5, 30, 64), (30, 7, 1)])
def test_items_come_in_restart_order_in_batches_of_one_shape(
    model: keras.Model, stub: Stub, n: int, count: int, batch_size: int
) -> None:
    stub_run(model, n, count, batch_size)
    broken, _ = exhaustive(n, count)
    done: set[tuple[int, int]] = set()
    gone: set[int] = set()
    latest = (-1, -1)
    for index, restart in stub.batches:
        assert len(index) == batch_size
        items = list(zip(restart.tolist(), index.tolist(), strict=True))
        fresh = list(dict.fromkeys(item for item in items if item not in done))
        # What only fills the last batches comes at their end: their first item again.
        assert items == fresh + [fresh[0]] * (batch_size - len(fresh))
        for item in fresh:
            assert item > latest
            latest = item
            assert item[1] not in gone  # an image leaves when it is broken
        done.update(fresh)
        gone.update(i for r, i in fresh if broken[i, r])
    standing = set(range(n)) - gone
    assert {(r, i) for r in range(count) for i in standing} <= done


def test_the_loop_attacks_far_less_than_the_exhaustive_one(model: keras.Model, stub: Stub) -> None:
    record = stub_run(model, 1000, 50, 50)
    items = sum(len(index) for index, _ in stub.batches)
    assert items < 1.1 * record.restarts_spent(50).sum()
    assert items < 0.55 * 1000 * 50


def test_every_saved_state_ends_in_the_same_result(
    model: keras.Model, stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Saved after each batch: what `kill -9` can leave behind is one of these files."""
    monkeypatch.setattr(restarts, "SAVE_SECONDS", -1.0)
    files: list[Path] = []

    def save(record: AttackRecord) -> None:
        files.append(tmp_path / f"{len(files)}.npz")
        save_record(files[-1], record)

    expected = stub_run(model, 30, 12, 25, losses=True, save=save)
    assert len(files) > 10
    for file in files:
        found = stub_run(model, 30, 12, 25, record=load_record(file))
        for name in ("next_restart", "first_break", "adversarial", "losses", "broken"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_progress_is_saved_at_least_so_often(
    model: keras.Model, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert restarts.SAVE_SECONDS <= 30
    clock = [0.0]

    def monotonic() -> float:
        clock[0] += 1.0
        return clock[0]

    monkeypatch.setattr(restarts.time, "monotonic", monotonic)
    saves: list[float] = []
    stub_run(model, 30, 40, 5, save=lambda record: saves.append(clock[0]))
    assert len(saves) >= 3
    assert max(np.diff([1.0, *saves])) <= restarts.SAVE_SECONDS + 5


def test_progress_reports(model: keras.Model, stub: Stub) -> None:
    seen: list[Progress] = []
    record = stub_run(model, 30, 12, 25, report=seen.append)
    assert all((p.images, p.restarts) == (30, 12) for p in seen)
    assert all(p.gradients_per_second > 0 and p.seconds_left >= 0 for p in seen)
    for name, sign in (("standing", -1), ("restarts_done", 1)):
        values = [sign * getattr(p, name) for p in seen]
        assert values == sorted(values)
    assert (seen[-1].standing, seen[-1].restarts_done) == (record.standing.sum(), 12)
    assert seen[-1].seconds_left == 0


def test_a_record_says_no_more_than_it_knows(model: keras.Model, stub: Stub) -> None:
    record = stub_run(model, 30, 12, 25)
    assert record.accuracy_at(3) >= record.accuracy_at(12)
    for question in (record.accuracy_at, record.restarts_spent, record.interval_at):
        with pytest.raises(ValueError, match="does not have 13 restarts"):
            question(13)
    with pytest.raises(ValueError, match="no losses were recorded"):
        record.mean_accuracy(12)


def test_recorded_losses_run_on_after_an_image_is_broken(model: keras.Model, stub: Stub) -> None:
    record = stub_run(model, 30, 12, 25, losses=True)
    assert np.all(record.next_restart == 12)
    assert not np.isnan(record.losses).any()
    more = stub_run(model, 30, 15, 25, losses=True, record=record)
    np.testing.assert_array_equal(more.losses, exhaustive(30, 15)[1])


# Numbers


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        (500, 1000, 0.4691, 0.5309),
        (980, 1000, 0.9693, 0.9870),
    ],
)
def test_wilson_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_intervals_end_exactly_at_zero_and_one() -> None:
    assert wilson_interval(0, 1000)[0] == 0.0
    assert wilson_interval(1000, 1000)[1] == 1.0
    for bad in ((-1, 10), (11, 10), (0, 0)):
        with pytest.raises(ValueError, match="not a proportion"):
            wilson_interval(*bad)


EPSILONS = [0.3, 16 / 255, 76.5 / 255, 1 / 3, 0.25, 1.0, 1e-9]


@pytest.mark.parametrize("eps", EPSILONS)
def test_bounds_are_exact_to_the_last_bit(eps: float) -> None:
    """The outermost float32 numbers in the ball and in [0, 1], judged in exact fractions."""
    edges = [0.0, 1.0, 0.5, eps, 1 - eps, 1e-45, 1e-38, 1e-9, 1 / 255, 254 / 255]
    pixels = np.array(edges, np.float32)
    around = [np.nextafter(pixels, np.float32(end)) for end in (0, 1)]
    random = np.random.default_rng(0).random(300, dtype=np.float32)
    images = np.concatenate([pixels, *around, random])
    lower, upper = exact_bounds(images, eps)
    assert lower.dtype == upper.dtype == np.float32
    radius = Fraction(eps)

    def inside(image: np.float32, point: np.float32) -> bool:
        distance = abs(Fraction(float(point)) - Fraction(float(image)))
        return distance <= radius and 0 <= point <= 1

    for image, low, high in zip(images, lower, upper, strict=True):
        assert inside(image, low) and inside(image, high)
        assert low <= image <= high
        assert not inside(image, np.nextafter(low, np.float32(-1)))
        assert not inside(image, np.nextafter(high, np.float32(2)))


@pytest.mark.parametrize("eps", EPSILONS)
def test_bounds_hold_for_many_pixels(eps: float) -> None:
    images = np.random.default_rng(1).random(200_000, dtype=np.float32)
    lower, upper = exact_bounds(images, eps)
    wide = images.astype(np.float64)
    assert np.all(wide - lower <= eps) and np.all(upper - wide <= eps)
    assert np.all(wide - lower >= np.minimum(eps, wide) - 1.2e-7)
    assert np.all(upper - wide >= np.minimum(eps, 1 - wide) - 1.2e-7)


# Files


def test_a_record_comes_back_from_disk_as_it_was(
    model: keras.Model, stub: Stub, tmp_path: Path
) -> None:
    record = dataclasses.replace(
        stub_run(model, 8, 5, 16, losses=True),
        settings={"attack": attack_settings(ATTACK), "seed": 4},
        sessions=[{"date": "today", "n": 1}],
    )
    path = tmp_path / "deep" / "record.npz"
    save_record(path, record)
    found = load_record(path)
    for field in dataclasses.fields(AttackRecord):
        before, after = getattr(record, field.name), getattr(found, field.name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(after, before)
        else:
            assert after == before
    assert [file.name for file in path.parent.iterdir()] == ["record.npz"]


def test_a_damaged_file_is_refused_in_one_line_wherever_it_is_cut(
    model: keras.Model, stub: Stub, tmp_path: Path
) -> None:
    path = tmp_path / "record.npz"
    save_record(path, stub_run(model, 8, 5, 16))
    whole = path.read_bytes()
    for size in [0, 1, 10, *range(50, len(whole) - 1, len(whole) // 40)]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"record\.npz is truncated") as caught:
            load_record(path)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == whole[:size]


def test_a_file_with_a_turned_bit_is_refused_or_gives_the_same(
    model: keras.Model, stub: Stub, tmp_path: Path
) -> None:
    path = tmp_path / "record.npz"
    record = stub_run(model, 8, 5, 16)
    save_record(path, record)
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 37):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(bytes(damaged))
        try:
            found = load_record(path)
        except InputError:
            refused += 1
        else:  # a byte that nothing depends on, such as a date in the archive
            np.testing.assert_array_equal(found.first_break, record.first_break)
            np.testing.assert_array_equal(found.adversarial, record.adversarial)
    assert refused > 20


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.npz"
    array = io.BytesIO()
    np.save(array, np.arange(3))
    contents: list[Callable[[], object]] = [
        lambda: path.write_text("hello"),
        lambda: path.write_bytes(array.getvalue()),
        lambda: np.savez(path, labels=np.arange(3)),
        lambda: np.savez(path, labels=np.array([{}], object)),
        lambda: zipfile.ZipFile(path, "w").close(),
    ]
    for write in contents:
        write()
        with pytest.raises(InputError, match=r"record\.npz is truncated"):
            load_record(path)
    with pytest.raises(InputError):
        load_record(tmp_path)


def test_settings_and_sessions_are_text_in_the_file(
    model: keras.Model, stub: Stub, tmp_path: Path
) -> None:
    path = tmp_path / "record.npz"
    record = dataclasses.replace(stub_run(model, 3, 2, 4), settings={"seed": 4})
    save_record(path, record)
    with np.load(path) as file:  # which loads no pickle
        assert json.loads(str(file["settings"])) == {"seed": 4}


@pytest.mark.parametrize("save", [False, True])
def test_memory_grows_by_a_batch_not_by_the_images(
    model: keras.Model, stub: Stub, save: bool
) -> None:
    """Bounds for all images, or a copy of the kept ones each batch, would be several times them."""
    images, labels = np.zeros((10_000, *IMAGE_SHAPE), np.float32), np.zeros(10_000, np.int32)
    record = begin(
        labels=labels,
        indices=np.arange(len(labels)),
        clean_predictions=labels,
        settings={},
        image_shape=IMAGE_SHAPE if save else None,
    )
    tracemalloc.start()
    try:
        restarts.attack_with_restarts(
            model,
            images,
            record,
            attack=dataclasses.replace(ATTACK, restarts=1),
            seed=SEED,
            execution=Execution(batch_size=100),
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(stub.batches) == 100
    # What an evaluation of some images at most adds: states of the loop and one batch.
    assert peak < 0.8 * images.nbytes


def test_what_an_interrupt_leaves_of_a_batch_is_forgotten(model: keras.Model, stub: Stub) -> None:
    """Kept images are written in place: before the batch counts, and perhaps without it."""
    images, labels = np.zeros((5, *IMAGE_SHAPE), np.float32), np.zeros(5, np.int32)
    record = new_record(images, labels)
    assert record.adversarial is not None
    record.adversarial[2] = 0.7
    saved: list[AttackRecord] = []
    with pytest.raises(KeyboardInterrupt):

        def interrupt(progress: Progress) -> None:
            raise KeyboardInterrupt

        restarts.attack_with_restarts(
            model,
            images,
            record,
            attack=dataclasses.replace(ATTACK, restarts=3),
            seed=SEED,
            execution=Execution(batch_size=2),
            save=saved.append,
            report=interrupt,
        )
    assert saved[-1].standing[2] and not saved[-1].adversarial[saved[-1].standing].any()
