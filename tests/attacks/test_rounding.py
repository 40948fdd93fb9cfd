"""The probe of a program's rounding, and programs that follow it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import PGD
from alp_repro.attacks.rounding import find_rounding, rounding_notes
from alp_repro.evaluation import evaluate
from alp_repro.models import build_model
from tests.small_model import IMAGE_SHAPE, small_model


@keras.saving.register_keras_serializable("tests")
class BlocksOfSix(keras.layers.Layer):
    """Rounds a rest of one to three rows otherwise, as oneDNN's AVX2 kernel does."""

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        rows = tf.shape(logits)[0]
        rest = rows % 6
        is_rest = (tf.range(rows) >= rows - rest) & (rest < 4)
        return logits * tf.where(is_rest, 1 + 2.0**-20, 1.0)[:, None]


@keras.saving.register_keras_serializable("tests")
class ByPlace(keras.layers.Layer):
    """Gives every row another rounding."""

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        rows = tf.cast(tf.range(tf.shape(logits)[0]), tf.float32)
        return logits * (1 + rows[:, None] * 2.0**-20)


def _with(layer: keras.layers.Layer) -> keras.Model:
    model = small_model()
    return keras.Model(model.input, layer(model.output))


def _rounding(model: keras.Model, batch_size: int) -> Any:
    return find_rounding(model, model, image_shape=IMAGE_SHAPE, batch_size=batch_size)


@pytest.mark.parametrize(("batch_size", "rows"), [(1, 1), (7, 12), (12, 12), (50, 60), (200, 204)])
def test_a_batch_is_filled_up_to_rows_that_are_rounded_alike(batch_size: int, rows: int) -> None:
    found = _rounding(_with(BlocksOfSix()), batch_size)
    assert found.exact
    # This machine's own kernels may ask for more.
    assert found.rows >= rows and found.rows % 12 == (1 if rows == 1 else 0)


def test_where_no_size_helps_it_says_so() -> None:
    found = _rounding(_with(ByPlace()), 7)
    assert not found.exact and found.rows == 7


def test_the_fingerprint_tells_other_bits() -> None:
    plain, other = small_model(), small_model()
    assert _rounding(plain, 12).fingerprint == _rounding(other, 12).fingerprint
    scaled = _with(keras.layers.Rescaling(1 + 2.0**-20))
    assert _rounding(scaled, 12).fingerprint != _rounding(plain, 12).fingerprint


@pytest.mark.slow
def test_fillers_change_nothing(images: np.ndarray) -> None:
    """A record from batches that are filled up is that of one full batch."""
    model = _with(BlocksOfSix())
    labels = np.argmax(model(images[:12]), axis=1)
    attack = PGD(eps=0.05, eps_iter=0.02, nb_iter=3, restarts=6)

    def found(batch_size: int) -> Any:
        return evaluate(
            model, images[:12], labels, attack=attack, batch_size=batch_size, record_losses=True
        )

    small, whole = found(7), found(12)
    assert small.sessions == whole.sessions == []
    if _rounding(model, 7).rows == _rounding(model, 12).rows:
        np.testing.assert_array_equal(small.losses, whole.losses)
    np.testing.assert_allclose(small.losses, whole.losses, rtol=1e-3)
    np.testing.assert_array_equal(small.first_break, whole.first_break)


def test_a_result_notes_how_it_was_rounded(tmp_path: Any, images: np.ndarray) -> None:
    model = small_model()
    labels = np.argmax(model(images[:12]), axis=1)
    attack = PGD(eps=0.05, eps_iter=0.02, nb_iter=1, restarts=1)
    record = evaluate(model, images[:12], labels, attack=attack, folder=tmp_path, batch_size=12)
    noted = record.sessions[0]["rounding"]["float32"]
    assert noted == rounding_notes(model, batch_size=12)["rounding"]["float32"]
    assert noted["exact"] is True and len(noted["fingerprint"]) == 8


@pytest.mark.parametrize("name", ["lenet", "resnet20_v2"])
def test_our_models_are_exact_here(name: str) -> None:
    """The engine's promise, on the processor that runs this test."""
    side = 28 if name == "lenet" else 32
    shape = (side, side, 1 if name == "lenet" else 3)
    model = build_model(name, image_shape=shape, num_classes=10, width=8)
    assert find_rounding(model, model, image_shape=shape, batch_size=50).exact
