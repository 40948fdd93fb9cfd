"""The fused update is Keras' Adam up to rounding, also when one goes on from the other's state."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.training.adam import FusedAdam

SETTINGS = {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6}


def trajectory(optimizer: keras.optimizers.Optimizer, steps: int, *, compiled: bool) -> np.ndarray:
    """The variable after each step on random gradients, float32 [steps, 5]."""
    variable = keras.Variable(np.linspace(-1, 1, 5), dtype="float32")
    optimizer.build([variable])
    generator = np.random.default_rng(3)
    scales = np.array([1e-7, 1e-3, 1.0, 1e3, 0.0])

    def step(gradient: tf.Tensor) -> None:
        optimizer.apply([gradient], [variable])

    run = tf.function(step, jit_compile=True) if compiled else tf.function(step)
    found = []
    for _ in range(steps):
        run(tf.constant(generator.normal(size=5) * scales, tf.float32))
        found.append(variable.numpy())
    return np.stack(found)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("average", [None, 0.9])
def test_the_fused_update_is_keras_adam(average: float | None, compiled: bool) -> None:
    settings = {**SETTINGS, "use_ema": average is not None, "ema_momentum": average}
    theirs = trajectory(keras.optimizers.Adam(**settings), 30, compiled=compiled)
    ours = trajectory(FusedAdam(**settings), 30, compiled=compiled)
    assert np.abs(theirs[-1] - theirs[0]).max() > 0.02
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_state_of_keras_adam_is_gone_on_with() -> None:
    variable = keras.Variable(np.ones(3), dtype="float32")
    theirs, ours = keras.optimizers.Adam(**SETTINGS), FusedAdam(**SETTINGS)
    for optimizer in (theirs, ours):
        optimizer.build([variable])
    theirs.apply([tf.constant([1.0, -2.0, 3.0])], [variable])
    names = [[v.path.partition("/")[2] for v in each.variables] for each in (theirs, ours)]
    assert names[0] == names[1]
    for source, target in zip(theirs.variables, ours.variables, strict=True):
        target.assign(source)
    before = variable.numpy()
    ours.apply([tf.constant([1.0, -2.0, 3.0])], [variable])
    after = variable.numpy()
    variable.assign(before)
    theirs.apply([tf.constant([1.0, -2.0, 3.0])], [variable])
    np.testing.assert_allclose(after, variable.numpy(), rtol=1e-6)
