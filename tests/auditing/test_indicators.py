"""Each way to fool an evaluation raises its own flag, and an honest model raises none."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import PGD, Phase, Square
from alp_repro.auditing import (
    Audit,
    audit,
    checks,
    indicators,
    measurements,
    planted,
    specs,
)
from alp_repro.auditing.planted import PlantedResult, features_of, planted_examples
from alp_repro.classifiers import as_classifier, pixel_range
from tests.auditing import fixtures
from tests.marks import slow_unless

IMAGES, LABELS = fixtures.images_and_labels()
PLAIN = PGD(eps=fixtures.EPS, eps_iter=fixtures.EPS / 10, nb_iter=40)
SQUARE = Square(eps=fixtures.EPS, nb_iter=50)
PHASES = (
    Phase(PLAIN, "all", name="default"),
    Phase(SQUARE, name="square"),
)


def audited(model, *, labels=LABELS, **options) -> Audit:  # type: ignore[no-untyped-def]
    settings = {"attack": PLAIN, "phases": PHASES, "closer_look": False, "minutes": 60} | options
    return audit(model, IMAGES, labels, fixtures.EPS, **settings)


def raised(found: Audit) -> set[str]:
    return {one.key for one in found.raised}


def saw(found: Audit, key: str) -> str:
    return next(one.saw for one in found.indicators if one.key == key)


def quantised(images: tf.Tensor) -> tf.Tensor:
    return tf.round(images * 8) / 8


def noisy(images: tf.Tensor) -> tf.Tensor:
    return images + tf.random.normal(tf.shape(images), stddev=0.05)


def rectified(logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(logits - tf.reduce_mean(logits, axis=1, keepdims=True))


FOOLING = {
    "an honest model": (fixtures.honest, set()),
    "constant logits": (fixtures.constant, {"no_gradient"}),
    "a saturated softmax": (lambda: fixtures.times(1e4), {"zero_gradients", "eps_grid"}),
    "tiny logits": (lambda: fixtures.times(1e-6), {"tiny_logits"}),
    "a quantised input": (lambda: fixtures.After(before=quantised), {"no_gradient"}),
    "noise at inference": (lambda: fixtures.After(before=noisy), set()),
    "batch norm in training mode": (fixtures.BatchStatistics, {"random_outputs"}),
    "a ReLU on the logits": (
        lambda: fixtures.After(after=rectified, sharpness=5.0),
        {"relu_logits"},
    ),
    "pixels of 0 to 255": (lambda: fixtures.honest(scale=1 / 255), {"near_chance"}),
}


@functools.cache
def fooled(name: str) -> Audit:
    """The audit of one of them, made once for all tests that look at it."""
    labels = np.zeros_like(LABELS) if name == "constant logits" else LABELS
    return audited(FOOLING[name][0](), labels=labels)


QUICK = {
    "an honest model",
    "constant logits",
    "a quantised input",
    "batch norm in training mode",
    "pixels of 0 to 255",
}


@pytest.mark.parametrize("name", slow_unless(QUICK, FOOLING))
def test_each_raises_exactly_its_flag(name: str) -> None:
    flags, found = FOOLING[name][1], fooled(name)
    assert raised(found) == flags
    assert ("Nothing raised" in found.verdict) == (not flags)
    for one in found.raised:
        assert one.title in found.verdict


def test_the_likely_pixel_range_is_named_and_nothing_is_attacked() -> None:
    found = fooled("pixels of 0 to 255")
    assert "is the pixel range right? With pixels of 0 to 255 it is 100.0%" in found.verdict
    assert found.attacks == ()


def test_a_gradient_that_is_not_there_leaves_the_black_box() -> None:
    """The evaluation's own number, clean accuracy, is reported beside what Square finds."""
    found = fooled("a quantised input")
    assert [one.name for one in found.attacks] == ["default", "square"]
    assert "TensorFlow gives no gradient at all" in saw(found, "no_gradient")


@pytest.mark.slow
def test_a_larger_ball_is_an_overestimate_by_small_steps() -> None:
    """A default attack of one tiny step leaves all; a phase of larger ones breaks all."""
    eps = 0.5
    tiny = PGD(eps=eps, eps_iter=eps / 100, nb_iter=1, random_start=False)
    large = PGD(eps=eps, eps_iter=eps / 4, nb_iter=20, loss="margin")
    phases = (
        Phase(tiny, "all", name="default"),
        Phase(large, "all", name="steps"),
    )
    found = audit(
        fixtures.After(), IMAGES, LABELS, eps, attack=tiny, phases=phases, closer_look=False
    )
    assert found.default_accuracy == 1.0
    assert found.worst_accuracy == 0.0
    assert "overestimate" in raised(found)
    assert "The evaluation overestimates by 100 points." in found.verdict
    broken = found.adversarial
    assert np.abs(broken - IMAGES).max() <= eps + 1e-7
    np.testing.assert_array_equal(
        np.argmax(np.asarray(fixtures.honest()(broken)), axis=1), found.found
    )
    assert (found.found != LABELS).all()


@pytest.mark.slow
def test_planted_examples_are_found_by_attacks_and_missed_by_a_lame_one() -> None:
    features = features_of(fixtures.honest())
    assert features is not None
    strong = planted_examples(features, IMAGES[:16], attack=PLAIN, seed=0, batch_size=16)
    lame = PGD(eps=fixtures.EPS, eps_iter=fixtures.EPS / 1000, nb_iter=2)
    weak = planted_examples(features, IMAGES[:16], attack=lame, seed=0, batch_size=16)
    assert strong.images == 16
    assert strong.found == 16
    assert strong.by_chance <= 4
    assert weak.found <= 4
    assert strong.by_strongest == weak.by_strongest == 16


def test_planted_examples_are_found_through_noise_too() -> None:
    features = features_of(fixtures.honest())
    noisy = dataclasses.replace(PLAIN, gradient_noise=0.01, momentum=0.5)
    found = planted_examples(features, IMAGES[:8], attack=noisy, seed=0, batch_size=8)
    assert found.found == found.images == 8


def test_the_unit_test_is_failed_by_the_strongest_attack_alone() -> None:
    """What a weak default attack costs is what the overestimate says."""
    assert not indicators.unit_test(PlantedResult(32, found=3, by_strongest=31, by_chance=0)).raised
    assert indicators.unit_test(PlantedResult(32, found=32, by_strongest=30, by_chance=0)).raised


def test_features_are_the_last_layers_input_and_absent_where_there_is_none() -> None:
    """Also of a model inside a model, behind what stands before it."""
    honest = fixtures.honest()
    images = keras.Input(fixtures.SHAPE)
    nested = keras.Model(images, honest(keras.layers.Rescaling(0.5)(images)))
    alone, inside = features_of(honest), features_of(nested)
    assert alone is not None and inside is not None
    np.testing.assert_allclose(inside(IMAGES), np.asarray(alone(0.5 * IMAGES)), atol=1e-6)
    assert features_of(fixtures.DropoutLeftOn()) is None


@pytest.mark.slow
def test_an_application_with_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it says is right; its softmax is taken off.

    Without the unit test and the unbounded attack, which other tests have: each of them compiles
    so deep a network for seconds.
    """
    monkeypatch.setattr(planted, "features_of", lambda _: None)
    monkeypatch.setattr(checks, "unbounded", lambda _: specs.UNBOUNDED.not_judged("left out"))
    network = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=5)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    pixels = pixel_range(-1, 1)
    classifier = as_classifier(network, image_shape=(32, 32, 3), pixels=pixels).model
    labels = np.asarray(classifier(images / np.float32(255))).argmax(axis=1)
    tiny = PGD(eps=8 / 255, eps_iter=4 / 255, nb_iter=2)
    found = audit(
        network,
        images,
        labels,
        8 / 255,
        attack=tiny,
        pixels=pixels,
        minutes=60,
        phases=[Phase(tiny, "all", name="default")],
        closer_look=False,
    )
    assert found.clean_accuracy == 1.0
    assert any("softmax" in note for note in found.notes)
    # Batch norm without statistics of any data leaves next to nothing of an image.
    assert "tiny_logits" in raised(found)
    assert not {"random_outputs", "no_gradient", "judge_disagrees"} & raised(found)


def test_restarts_that_go_on_breaking_are_reported() -> None:
    first_break = np.array([0, 0, 1, 3, 6, 7, -1, -1, -1, -1])
    one = indicators.restarts(first_break, 10, 20)
    assert one.raised  # 2 of 20 at one restart, 6 at all
    assert "20.0 points from 1 to 10 restarts" in one.saw
    assert "the last 5 broke 2 images, and 20 restarts may break 2 more" in one.saw
    assert not indicators.restarts(np.zeros(10, int), 10, 20).raised


def test_a_trajectory_is_read_as_its_source_reads_it() -> None:
    """Images in columns: one that still rises, one that has ended, one forgotten, one broken."""
    flat, rise = np.full(20, 1.0), np.linspace(0.0, 1.0, 20)
    ended = np.concatenate([rise, flat])  # 0% of its range in the last 10 iterates
    slow = np.concatenate([rise * 0.96, np.linspace(0.96, 1.0, 20)])  # 2%
    still = np.linspace(0.0, 1.0, 40)  # 9 of 39 steps: 23%
    losses = np.stack([still, ended, slow, ended, ended], axis=1)
    broken = np.zeros((40, 5), bool)
    broken[7, 3] = True  # and right again at the end
    broken[30:, 4] = True
    seen = measurements.trajectory_summary(losses, broken)
    assert seen == {
        "forgotten": pytest.approx(1 / 5),
        "still_rising": pytest.approx(1 / 3),
        "standing": 3,
    }


def test_too_few_classes_for_the_loss_under_audit() -> None:
    attacks = {
        (loss, target): PGD(eps=0.1, eps_iter=0.1, nb_iter=1, loss=loss, target=target)
        for loss in ("dlr", "margin")
        for target in ("none", "each")
    }
    assert indicators.few_classes(2, attacks["dlr", "none"]).raised
    assert indicators.few_classes(3, attacks["dlr", "each"]).raised
    assert not indicators.few_classes(3, attacks["dlr", "none"]).raised
    assert not indicators.few_classes(2, attacks["margin", "each"]).raised


def test_black_box_and_unbounded_thresholds() -> None:
    assert indicators.black_box_stronger(3, 50, 200).raised
    assert not indicators.black_box_stronger(2, 50, 200).raised
    assert not indicators.black_box_stronger(1, 19, 24).raised  # one of few images is no sign
    assert indicators.unbounded_fails(1, 50).raised
    assert not indicators.unbounded_fails(0, 50).raised


def test_a_loss_that_still_rises_is_reported_where_more_iterations_matter() -> None:
    assert indicators.incomplete(1.0, 20, more=None).raised
    assert indicators.incomplete(1.0, 20, more=0.10).raised
    assert not indicators.incomplete(1.0, 20, more=0.02).raised
    assert not indicators.incomplete(0.2, 20, more=0.10).raised
    assert not indicators.incomplete(1.0, 4, more=None).raised


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_neither_a_masked_class_nor_an_offset_blinds_what_scales(
    masked: bool, offset: float
) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)

    def end(values: np.ndarray) -> np.ndarray:
        mask = np.full((len(values), int(masked)), -1e9, np.float32)
        return np.concatenate([values + np.float32(offset), mask], axis=1)

    assert not indicators.logit_scale(end(logits)).raised
    if not offset:  # beside a large one, float32 has no room for such logits
        assert indicators.logit_scale(end(1e-4 * logits)).raised
    calls = iter(range(100))

    class Noisy(keras.Model):
        def call(self, images: tf.Tensor) -> tf.Tensor:
            drawn = tf.numpy_function(lambda: np.float32(0.3 * next(calls)), [], tf.float32)
            return tf.constant(end(logits)) + tf.where(tf.constant(end(logits)) > -1e8, drawn, 0.0)

    moved = measurements.randomness(
        Noisy(), np.zeros((50, 2, 2, 1), np.float32), end(logits), batch_size=50
    )
    assert indicators.random_outputs(moved["repeated"], 0.0, why=None).raised
