"""What is no path, no attack and no labels is told in a line, by whoever is given it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro import Attack, audit, evaluate, load_published, strong_attack
from alp_repro.classifiers import as_classifier
from alp_repro.errors import InputError
from alp_repro.evaluation.record_file import load_record
from alp_repro.reporting.stored_tables import read_table
from alp_repro.runs import load_model

IMAGES = np.zeros((2, 4, 4, 1), np.float32)
SMALL = Attack(eps=0.1, eps_iter=0.1, nb_iter=1)


def evaluate_it(model: keras.Model) -> None:
    evaluate(model, IMAGES, [0, 1], attack=SMALL)


def audit_it(model: keras.Model) -> None:
    audit(model, IMAGES, [0, 1], 0.1)


def as_classifier_it(model: keras.Model) -> None:
    as_classifier(model, image_shape=(4, 4, 1))


@pytest.mark.parametrize("value", ["~nosuch/x", "a\0b", "x" * 5000, "/\ud800", None, 3, [], b"x"])
@pytest.mark.parametrize("read", [load_model, load_record, load_published])
def test_what_is_no_path_is_told_in_a_line(read: Any, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        read(value)
    assert "\n" not in str(caught.value)


NO_FUNCTION = [3, 1.5, [], {}, b"x", ("a",), object()]
WRONG = [({"attack": 3}, "an Attack is"), ({"labels": [[1], [1, 2]]}, "labels")]
WRONG += [({"run_restarts": None}, "run_restarts is a NoneType: expected a function")]
for name in ("report", "run_restarts", "strategy"):
    WRONG += [({name: value}, f"{name} is a {type(value).__name__}") for value in NO_FUNCTION]
for name in ("record_losses", "save_adversarial", "allow_random", "jit_compile"):
    WRONG += [({name: value}, f"{name} .*True or False") for value in ("no", 1, [], 0.0)]


@pytest.mark.parametrize(("argument", "told"), WRONG)
def test_what_evaluate_cannot_take_is_told_in_a_line(argument: dict[str, Any], told: str) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    given = {"labels": [0, 1], "attack": SMALL, **argument}
    with pytest.raises(InputError, match=told):
        evaluate(model, IMAGES, **given)


@pytest.mark.parametrize("path", ["a\0b", "/root/\ud800", "/dev/null/x", "x" * 5000, "."])
def test_a_path_that_no_table_has_is_told_in_a_line(path: str) -> None:
    with pytest.raises(InputError) as caught:
        read_table(Path(path))
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


class Exits(keras.Model):
    """Leaves the program when it is called."""

    def call(self, images: Any, training: bool = False) -> Any:
        raise SystemExit(0)


@pytest.mark.parametrize("use", [evaluate_it, audit_it, as_classifier_it])
def test_a_model_that_exits_is_told_in_a_line(use: Any) -> None:
    with pytest.raises(InputError, match=r"sys\.exit"):
        use(Exits())


@pytest.mark.parametrize("name", ["nb_iter", "restarts", "budget", "search"])
def test_a_count_that_is_out_of_reach_is_told_in_a_short_line(name: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        Attack(**{"eps": 0.1, "eps_iter": 0.1, "nb_iter": 1, name: 10**400})
    assert len(str(caught.value)) < 200


def test_a_size_that_float32_cannot_hold_is_told_as_that() -> None:
    with pytest.raises(InputError, match="float32"):
        Attack(eps=1e-300, eps_iter=1e-300, nb_iter=1)


@pytest.mark.parametrize("eps", [{}, object(), "0.1", None, True])
def test_the_preset_takes_numbers(eps: Any) -> None:
    with pytest.raises(InputError, match="eps"):
        strong_attack(eps)
