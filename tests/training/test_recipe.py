"""A recipe's settings: what may be together, what is refused, and telling two apart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alp_repro.attacks import PGD, SPSA
from alp_repro.errors import InputError
from alp_repro.losses import PENALTIES
from alp_repro.training import Recipe

STORED = Path(__file__).parents[1] / "stored" / "runs" / "mnist" / "stopped" / "settings.json"
ATTACK = PGD(eps=0.3, eps_iter=0.01, nb_iter=40)


def recipe(**changes: Any) -> Recipe:
    """A recipe with changes, among them λ of penalties by their names."""
    weights = {name: changes.pop(name) for name in PENALTIES if name in changes}
    mnist = {"dataset": "mnist", "model": "lenet", "epochs": 500, "batch_size": 200}
    return Recipe(**{**mnist, "penalties": weights, **changes})


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
        ({"epochs": 0}, "epochs 0: .*whole number from 1 to 1000000"),
        ({"epochs": 1.5}, "epochs 1.5: .*whole number"),
        ({"epochs": True}, "epochs True: .*whole number"),
        ({"epochs": 10**12}, "epochs 1000000000000: .*whole number from 1 to 1000000"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": -200}, "batch_size -200"),
        ({"batch_size": 10**10}, "batch_size 10000000000"),
        ({"train_images": 0}, "train_images 0"),
        ({"model_width": -1}, "model_width -1"),
        ({"batch_norm_decay": 1.0}, r"batch_norm_decay 1.0: .*\[0, 1\)"),
        ({"model_width": 10**12}, "model_width 1000000000000: .*whole number from 1 to 4096"),
        ({"clean_weight": -0.5}, r"clean_weight -0.5: .*number in \[0, 1e\+06\]"),
        ({"adversarial_weight": -1.0, "attack": ATTACK}, "adversarial_weight -1.0"),
        ({"clp": -0.1}, "clp -0.1"),
        ({"clp": 0.5, "batch_size": 1}, "clp pairs .*2 or more .*got 1"),
        ({"clp": 0.5, "batch_size": 8, "virtual_replicas": 8}, "clp pairs .*2 or more .*got 1"),
        ({"virtual_replicas": 3}, "batch_size 200: .*multiple of the 3 virtual_replicas"),
        ({"lsq": float("nan")}, "lsq nan"),
        ({"lsq": "0.5"}, "lsq '0.5': .*number"),
        ({"alp": float("inf"), "attack": ATTACK}, "alp inf"),
        ({"penalties": {"clq": 0.5}}, "unknown penalty 'clq': .*one of clp, lsq, alp"),
        ({"noise_stddev": -0.5}, "noise_stddev -0.5"),
        ({"noise_stddev": 1e300}, r"noise_stddev 1e\+300: .*number in \[0, 100\]"),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"learning_rate": 0.0}, r"learning_rate 0.0: .*number in \[1e-12, 1000\]"),
        ({"adam_epsilon": 0.0}, "adam_epsilon 0.0"),
        ({"learning_rate_drops": (-1,)}, "learning_rate_drops -1: .*whole number from 1"),
        ({"learning_rate_drops": (90, 80)}, "learning_rate_drops 90, 80: .*ascending"),
        ({"weight_decay": -1e-4}, "weight_decay -0.0001"),
        ({"alp": 1.0, "attack": ATTACK, "attack_warmup_steps": -1}, "attack_warmup_steps -1"),
        ({"attack_warmup_steps": 600}, "attack_warmup_steps .*no adversarial images"),
        ({"attack_warmup_nb_iter": 1}, "attack_warmup_nb_iter .*no adversarial images"),
        (
            {"alp": 1.0, "attack": ATTACK, "attack_warmup_nb_iter": 0},
            "attack_warmup_nb_iter 0: .*whole number from 1",
        ),
        ({"joint_batch": True}, "joint_batch .*no adversarial images"),
        ({"attack": ATTACK}, "training attack is given but .*alp"),
        (
            {"alp": 1.0, "attack": ATTACK, "joint_batch": True, "separate_passes": True},
            "joint_batch and separate_passes",
        ),
        ({"label_smoothing": 1.0}, r"label_smoothing 1.0: .*number in \[0, 1\)"),
        ({"average_decay": 1.0}, r"average_decay 1.0: .*number in \[0, 1\)"),
        ({"average_decay": float("nan")}, "average_decay nan"),
        ({"seed": -1}, "seed -1: .*whole number from 0 to 2147483647"),
        ({"seed": 2**31}, "seed 2147483648"),
        ({"clean_weight": 0.0}, "nothing is learned"),
        ({"alp": 1.0}, "no training attack is given"),
        ({"adversarial_weight": 1.0}, "no training attack is given"),
        (
            {"alp": 1.0, "attack": SPSA(eps=ATTACK.eps)},
            "training attack spsa: .*pgd or apgd",
        ),
        (
            {"alp": 1.0, "attack": dataclasses.replace(ATTACK, engine="cleverhans")},
            "engine=cleverhans is for evaluations",
        ),
        (
            {"alp": 1.0, "attack": dataclasses.replace(ATTACK, restarts=2)},
            "training attack .*one restart",
        ),
        (
            {"alp": 1.0, "attack": dataclasses.replace(ATTACK, gradient_noise=0.1)},
            "training attack .*no gradient_noise",
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
    others: list[dict[str, Any]] = [
        {"seed": 1},
        {"attack": dataclasses.replace(ATTACK, nb_iter=10)},
        {"clp": 0.5},
    ]
    for changes in others:
        assert recipe(**{"alp": 1.0, "attack": ATTACK, **changes}).to_json() != plain
    assert recipe(alp=1.0, attack=ATTACK).to_json() == plain


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe().epochs = 3  # type: ignore[misc]


# Read from JSON


def test_a_recipe_comes_back_from_json() -> None:
    for changes in (
        {},
        {"alp": 1.0, "clp": 0.5, "attack": ATTACK, "attack_warmup_steps": 600},
        {"learning_rate_drops": (80, 90), "max_steps": 40000, "adam_epsilon": 1e-8},
    ):
        written = json.loads(json.dumps(recipe(**changes).to_json()))
        assert Recipe.from_json(written, source="here") == recipe(**changes)


def test_a_recipe_of_revision_c001d3a_has_the_defaults_of_then() -> None:
    stored = json.loads(STORED.read_text())
    assert {"dtype", "adam_epsilon", "separate_passes", "max_steps"}.isdisjoint(stored)
    found = Recipe.from_json(stored, source="here")
    assert found.penalties == {"clp": 0.5} and found.train_images == 200
    assert (found.dtype, found.adam_epsilon, found.max_steps) == ("float32", 1e-6, None)
    assert not (found.separate_passes or found.round_weights)
    assert stored.items() <= json.loads(json.dumps(found.to_json())).items()


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: [],
        lambda good: None,
        lambda good: 3,
        lambda good: {},
        lambda good: {k: v for k, v in good.items() if k != "epochs"},
        lambda good: {**good, "epochs": "500"},
        lambda good: {**good, "epochs": None},
        lambda good: {**good, "clp": [0.5]},
        lambda good: {**good, "clip_noise": 1},
        lambda good: {**good, "attack": {"eps": 0.3}},
        lambda good: {**good, "attack": []},
        lambda good: {**good, "learning_rate_drops": 80},
        lambda good: {**good, "learning_rate": -1},
        lambda good: {**good, "momentum": 0.9},
    ],
)
def test_what_is_no_recipe_is_told_in_one_line(damage: Any) -> None:
    found = damage(json.loads(STORED.read_text()))
    with pytest.raises(InputError, match=r"^here") as caught:
        Recipe.from_json(found, source="here")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_numbers_of_numpy_become_plain_ones() -> None:
    found = recipe(epochs=np.int64(3), noise_stddev=np.float32(0.5), lsq=np.float64(0.25))
    assert found == recipe(epochs=3, noise_stddev=0.5, lsq=0.25)
    assert json.loads(json.dumps(found.to_json()))["epochs"] == 3
