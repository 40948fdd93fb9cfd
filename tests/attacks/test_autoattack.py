"""AutoAttack's parts: what they are, and that few classes have theirs."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from alp_repro.attacks import autoattack, autoattack_parts, presets
from alp_repro.errors import InputError
from alp_repro.evaluation import evaluate
from tests.small_model import IMAGE_SHAPE


def test_the_standard_version_is_the_papers() -> None:
    parts = autoattack_parts(8 / 255)
    assert list(parts) == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert [part.restarts for part in parts.values()] == [1, 9, 9, 1]
    assert [part.nb_iter for part in parts.values()] == [100, 100, 100, 5000]
    assert {part.eps for part in parts.values()} == {8 / 255}
    assert (parts["APGD-T"].loss, parts["APGD-T"].target) == ("dlr", "each")


def test_the_other_versions() -> None:
    plus, rand = autoattack_parts(0.3, version="plus"), autoattack_parts(0.3, version="rand")
    assert list(plus) == ["APGD-CE", "APGD-DLR", "APGD-T", "FAB-T", "Square"]
    assert plus["APGD-CE"].restarts == plus["APGD-DLR"].restarts == 5
    assert list(rand) == ["APGD-CE", "APGD-DLR"]
    with pytest.raises(InputError, match="standard, plus, rand"):
        autoattack_parts(0.3, version="quick")  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [2, 3, 4, 100])
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_every_part_is_defined_for_so_many_classes(classes: int, version) -> None:
    for part in autoattack_parts(0.1, version=version, classes=classes).values():
        assert part.min_classes <= classes
        assert part.restarts in (1, 5, min(9, classes - 1))


def test_each_part_is_a_phase_on_what_is_left() -> None:
    ensemble = autoattack(8 / 255, version="plus", classes=3, dtype="bfloat16")
    parts = autoattack_parts(8 / 255, version="plus", classes=3)
    assert [phase.attack for phase in ensemble.phases] == [
        dataclasses.replace(part, dtype="bfloat16") for part in parts.values()
    ]
    assert {phase.on for phase in ensemble.phases} == {"standing"}
    assert ensemble.gradients == sum(part.gradients for part in parts.values())
    assert presets.attack_named("autoattack", eps=0.1) == autoattack(0.1)


def test_one_class_is_told() -> None:
    with pytest.raises(InputError, match="2 or more"):
        autoattack_parts(0.1, classes=1)


@pytest.mark.slow
def test_three_classes_are_broken_by_every_part(images: np.ndarray) -> None:
    model = keras.Sequential([keras.Input(IMAGE_SHAPE), keras.layers.Flatten()])
    model.add(keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(seed=1)))
    labels = np.argmax(model(images[:8]), axis=1)
    for part in autoattack_parts(0.3, classes=3).values():
        found = evaluate(model, images[:8], labels, attack=part)
        assert not found.standing.any()
