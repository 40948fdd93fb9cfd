"""A random model is classified by what most of many passes give, never by the luck of one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import alp_repro
from alp_repro.attacks import Phase
from alp_repro.auditing import Audit
from alp_repro.auditing.model_under_audit import VERDICT_PASSES
from alp_repro.auditing.votes import Votes, votes_of
from tests.auditing import zoo

EPS = 0.06
N = 100
# Three times to each other class: a step follows the mean of few passes, and now and then misses.
PGD = zoo.pgd(
    EPS, eps_iter=EPS / 4, nb_iter=10, restarts=3 * (zoo.CLASSES - 1), loss="margin", target="each"
)
PLAN = (Phase(PGD, "all", name="default"),)


@functools.cache
def data(count: int) -> tuple[np.ndarray, np.ndarray]:
    return zoo.labelled(count, seed=11)


class Wrapped(keras.Model):
    """A plain model behind something random."""

    def __init__(self, inner: keras.Model, random: Callable[[tf.Tensor], tf.Tensor]) -> None:
        super().__init__()
        self.inner, self.random = inner, random

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.inner(self.random(images))


def noise(images: tf.Tensor, stddev: float = 0.05) -> tf.Tensor:
    return images + tf.random.normal(tf.shape(images), stddev=stddev)


def audited(model: keras.Model, *, count: int = N, **options: object) -> Audit:
    images, labels = data(count)
    settings = {"attack": PGD, "phases": PLAN, "closer_look": False, "minutes": 600} | options
    eps = settings.pop("eps", EPS)
    return alp_repro.audit(model, images, labels, eps, **settings)


@functools.cache
def unwrapped() -> Audit:
    return audited(zoo.dense("tanh"), count=2 * N)


# So little that 100 passes leave hardly an image to chance; two passes of three drop a pixel.
WRAPPERS = {
    "noise": lambda images: noise(images, 0.02),
    "dropout": lambda images: tf.nn.dropout(images, 0.03),
}


def test_the_models_of_the_zoo_are_the_same_every_time() -> None:
    for make in (lambda: zoo.dense("tanh"), zoo.convolutional, zoo.normalised, zoo.dense_of_two):
        for one, other in zip(make().get_weights(), make().get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_plain_model_is_no_more_robust_for_being_wrapped(name: str) -> None:
    plain = unwrapped()
    assert 0.2 < plain.worst_accuracy < 0.8
    found = audited(Wrapped(zoo.dense("tanh"), WRAPPERS[name]), count=2 * N)
    assert abs(found.worst_accuracy - plain.worst_accuracy) <= 0.03 + 1e-9
    low, high = found.chance_interval
    assert low <= found.worst_accuracy <= high
    assert f"most of {VERDICT_PASSES} passes" in found.verdict
    assert "random_outputs" not in [one.key for one in found.raised]


@pytest.mark.slow
def test_a_robust_random_model_raises_nothing(tmp_path: Path) -> None:
    """And a second call in its folder says the same, however its numbers fall."""
    model = Wrapped(zoo.linear(), noise)
    attack = zoo.pgd(0.01, eps_iter=0.0025, nb_iter=10)
    options = {
        "eps": 0.01,
        "attack": attack,
        "phases": [
            Phase(attack, "all", name="default"),
            Phase(zoo.square(0.01, 30), name="square"),
        ],
        "folder": tmp_path,
    }
    found = audited(model, **options)
    assert found.worst_accuracy > 0.9
    assert found.raised == ()
    again = audited(model, **options)
    assert again.verdict == found.verdict
    assert again.to_json()["chance_interval"] == found.to_json()["chance_interval"]
    assert again.to_json()["passes"] == VERDICT_PASSES


@pytest.mark.slow
def test_many_tries_do_not_break_by_luck() -> None:
    """Large noise and an attack that changes nothing: each of 30 tries may fail in its passes."""
    model = Wrapped(zoo.linear(), lambda x: x + tf.random.normal(tf.shape(x), stddev=0.4))
    tiny = zoo.pgd(1e-6, nb_iter=1, restarts=30)
    phases = [Phase(tiny, "all", name="default")]
    found = audited(model, count=40, eps=1e-6, attack=tiny, phases=phases)
    tried = found.attacks[0]
    wavering = int(found.votes.undecided[found.correct].sum())
    assert int(tried.broken.sum()) <= wavering
    assert found.worst_accuracy >= found.chance_interval[0]


def test_votes_that_leave_it_open() -> None:
    counts = np.array([[90, 5, 5], [52, 48, 0], [40, 45, 15], [5, 95, 0]])
    votes = votes_of(counts, np.zeros(4, int))
    assert votes.passes == 100
    np.testing.assert_array_equal(votes.right, [90, 52, 40, 5])
    np.testing.assert_array_equal(votes.other, [5, 48, 45, 95])
    np.testing.assert_array_equal(votes.undecided, [False, True, True, False])
    assert not Votes(10, np.array([10]), np.array([0])).undecided.any()
