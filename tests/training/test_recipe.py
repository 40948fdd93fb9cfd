"""A recipe's settings: what may be together, what is refused, and telling two apart."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from alp_repro.attacks import Attack
from alp_repro.errors import InputError
from alp_repro.training import Recipe

ATTACK = Attack(eps=0.3, eps_iter=0.01, nb_iter=40)


def recipe(**changes: Any) -> Recipe:
    return Recipe(
        **{"dataset": "mnist", "model": "lenet", "epochs": 500, "batch_size": 200, **changes}
    )


@pytest.mark.parametrize(
    ("changes", "uses_clean", "uses_adversarial"),
    [
        ({}, True, False),
        ({"clp": 0.5, "noise_stddev": 0.5}, True, False),
        ({"lsq": 0.5}, True, False),
        ({"alp": 1.0, "attack": ATTACK}, True, True),
        ({"clean_weight": 0.5, "adversarial_weight": 0.5, "attack": ATTACK}, True, True),
        ({"clean_weight": 0.0, "adversarial_weight": 1.0, "attack": ATTACK}, False, True),
        ({"clean_weight": 0, "adversarial_weight": 1, "alp": 1, "attack": ATTACK}, True, True),
    ],
)
def test_the_rows_of_table_1_are_recipes(
    changes: dict[str, Any], uses_clean: bool, uses_adversarial: bool
) -> None:
    found = recipe(**changes)
    assert (found.uses_clean, found.uses_adversarial) == (uses_clean, uses_adversarial)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs 0: a count of 1 or more"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": -200}, "batch_size -200"),
        ({"train_images": 0}, "train_images 0"),
        ({"model_width": -1}, "model_width -1"),
        ({"clean_weight": -0.5}, "clean_weight -0.5: a finite number of 0 or more"),
        ({"adversarial_weight": -1.0, "attack": ATTACK}, "adversarial_weight -1.0"),
        ({"clp": -0.1}, "clp -0.1"),
        ({"lsq": float("nan")}, "lsq nan"),
        ({"alp": float("inf"), "attack": ATTACK}, "alp inf"),
        ({"noise_stddev": -0.5}, "noise_stddev -0.5"),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"weight_decay": -1e-4}, "weight_decay -0.0001"),
        ({"attack_warmup_steps": -1}, "attack_warmup_steps -1"),
        ({"label_smoothing": 1.0}, r"label_smoothing 1.0: a number in \[0, 1\)"),
        ({"average_decay": 1.0}, r"average_decay 1.0: a number in \[0, 1\)"),
        ({"average_decay": float("nan")}, "average_decay nan"),
        ({"seed": -1}, r"seed -1: a number in \[0, 2\^31\)"),
        ({"seed": 2**31}, "seed 2147483648"),
        ({"clean_weight": 0.0}, "nothing is learned"),
        ({"alp": 1.0}, "no training attack is given"),
        ({"adversarial_weight": 1.0}, "no training attack is given"),
        (
            {"alp": 1.0, "attack": dataclasses.replace(ATTACK, method="spsa")},
            "spsa has no gradient steps: use pgd or apgd",
        ),
        (
            {"alp": 1.0, "attack": dataclasses.replace(ATTACK, engine="cleverhans")},
            "engine=cleverhans is for evaluations",
        ),
    ],
)
def test_a_bad_recipe_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        recipe(**changes)
    assert "\n" not in str(caught.value)


def test_a_recipe_is_plain_data_that_tells_two_apart() -> None:
    plain = recipe(alp=1.0, attack=ATTACK).to_json()
    assert json.loads(json.dumps(plain))["attack"]["eps"] == 0.3
    for changes in ({"seed": 1}, {"attack": dataclasses.replace(ATTACK, nb_iter=10)}, {"clp": 0.5}):
        assert recipe(**{"alp": 1.0, "attack": ATTACK, **changes}).to_json() != plain
    assert recipe(alp=1.0, attack=ATTACK).to_json() == plain


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe().epochs = 3  # type: ignore[misc]
