"""What is no path, no attack and no labels is told in a line, by whoever is given it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from alp_repro import Attack, evaluate, load_published
from alp_repro.errors import InputError
from alp_repro.evaluation.record_file import load_record
from alp_repro.runs import load_model

IMAGES = np.zeros((2, 4, 4, 1), np.float32)


@pytest.mark.parametrize("value", ["~nosuch/x", "a\0b", "x" * 5000, "/\ud800", None, 3, [], b"x"])
@pytest.mark.parametrize("read", [load_model, load_record, load_published])
def test_what_is_no_path_is_told_in_a_line(read: Any, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        read(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "told"), [({"attack": 3}, "an Attack is"), ({"labels": [[1], [1, 2]]}, "labels")]
)
def test_what_evaluate_cannot_take_is_told_in_a_line(argument: dict[str, Any], told: str) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    given = {"labels": [0, 1], "attack": Attack(eps=0.1, eps_iter=0.1, nb_iter=1), **argument}
    with pytest.raises(InputError, match=told):
        evaluate(model, IMAGES, **given)
