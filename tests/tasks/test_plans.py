"""What travels to the workers of a cluster."""

from __future__ import annotations

import time

import numpy as np

from alp_repro.tasks.plans import ModelFile
from tests.small_model import small_model


def test_files_of_one_model_are_equal_so_that_it_is_loaded_once() -> None:
    model = small_model()
    first = ModelFile.of(model)
    time.sleep(1.1)  # a .keras file holds the second in which it was made
    second = ModelFile.of(model)
    assert second == first and second.load() is first.load()
    images = np.random.default_rng(0).uniform(0, 1, (3, *model.input_shape[1:])).astype(np.float32)
    np.testing.assert_array_equal(first.load()(images), model(images))

    weights = model.get_weights()
    model.set_weights([weights[0] + 1e-3, *weights[1:]])
    assert ModelFile.of(model) != first
