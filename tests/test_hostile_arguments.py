"""What is no path, no attack and no labels is told in a line, by whoever is given it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from alp_repro import PGD, evaluate, load_published, strong_attack
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
    given = {"labels": [0, 1], "attack": PGD(eps=0.1, eps_iter=0.1, nb_iter=1), **argument}
    with pytest.raises(InputError, match=told):
        evaluate(model, IMAGES, **given)


@pytest.mark.parametrize("name", ["nb_iter", "restarts", "budget", "search"])
def test_a_count_that_is_out_of_reach_is_told_in_a_short_line(name: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        PGD(**{"eps": 0.1, "eps_iter": 0.1, "nb_iter": 1, name: 10**400})
    assert len(str(caught.value)) < 200


def test_a_size_that_float32_cannot_hold_is_told_as_that() -> None:
    with pytest.raises(InputError, match="float32"):
        PGD(eps=1e-300, eps_iter=1e-300, nb_iter=1)


@pytest.mark.parametrize("eps", [{}, object(), "0.1", None, True])
def test_the_preset_takes_numbers(eps: Any) -> None:
    with pytest.raises(InputError, match="eps"):
        strong_attack(eps)
