"""What is no path, no attack and no labels is told in a line, by whoever is given it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro import PGD, Phase, audit, evaluate, load_published, strong_attack
from alp_repro.classifiers import as_classifier
from alp_repro.data.images import Images
from alp_repro.data.own_images import read_own_images
from alp_repro.errors import InputError
from alp_repro.evaluation.heat_maps import load_heat_map
from alp_repro.evaluation.record_file import load_record
from alp_repro.reporting.stored_tables import read_table
from alp_repro.runs import RunDir, load_model
from alp_repro.training import Recipe, train

IMAGES = np.zeros((2, 4, 4, 1), np.float32)
SMALL = PGD(eps=0.1, eps_iter=0.1, nb_iter=1)


LINEAR = keras.Sequential(
    [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2, name="logits")]
)


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
WRONG = [({"attack": 3}, "attack is a int: .*Attack"), ({"labels": [[1], [1, 2]]}, "labels")]
WRONG += [({"executor": None}, "executor is a NoneType: expected a function")]
for name in ("report", "executor", "strategy"):
    WRONG += [({name: value}, f"{name} is a {type(value).__name__}") for value in NO_FUNCTION]
for name in ("record_losses", "save_adversarial", "allow_random", "jit_compile"):
    WRONG += [({name: value}, f"{name} .*True or False") for value in ("no", 1, [], 0.0)]


@pytest.mark.parametrize(("argument", "told"), WRONG)
def test_what_evaluate_cannot_take_is_told_in_a_line(argument: dict[str, Any], told: str) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    given = {"labels": [0, 1], "attack": SMALL, **argument}
    with pytest.raises(InputError, match=told):
        evaluate(model, IMAGES, **given)


@pytest.mark.parametrize("path", ["a\0b", "/root/\ud800", "/dev/null/x", "x/" * 3000, "."])
@pytest.mark.parametrize("read", [read_table, load_heat_map, load_record])
def test_a_path_that_no_result_has_is_told_in_a_line(read: Any, path: str) -> None:
    with pytest.raises(InputError) as caught:
        read(Path(path))
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)
    assert len(str(caught.value)) < 400


class Exits(keras.Model):
    """Leaves the program when it is called."""

    def call(self, images: Any, training: bool = False) -> Any:
        raise SystemExit(0)


@pytest.mark.parametrize("use", [evaluate_it, audit_it, as_classifier_it])
def test_a_model_that_exits_is_told_in_a_line(use: Any) -> None:
    with pytest.raises(InputError, match=r"sys\.exit"):
        use(Exits())


@pytest.mark.parametrize("name", ["nb_iter", "restarts"])
def test_a_count_that_is_out_of_reach_is_told_in_a_short_line(name: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        PGD(**{"eps": 0.1, "eps_iter": 0.1, "nb_iter": 1, name: 10**400})
    assert len(str(caught.value)) < 200


def test_a_size_that_float32_cannot_hold_is_told_as_that() -> None:
    with pytest.raises(InputError, match="float32"):
        PGD(eps=1e-300, eps_iter=1e-300, nb_iter=1)


RECIPE = Recipe(dataset="mnist", model="lenet", model_width=2, epochs=1, batch_size=2)
PAIR = Images(
    np.zeros((2, 28, 28, 1), np.uint8), np.arange(2, dtype=np.int32), np.arange(2), "here"
)


def changed(**fields: Any) -> Images:
    return dataclasses.replace(PAIR, **fields)


TRAINING = [
    ({"recipe": 3}, "recipe is a int: expected a Recipe"),
    ({"recipe": dataclasses.replace(RECIPE, dataset="x")}, "unknown dataset"),
    ({"run": "folder"}, "run is a str: expected a RunDir"),
    ({"run": RunDir(Path("a\0b"))}, "NUL"),
    ({"run": RunDir(Path("x" * 5000))}, "5000 characters"),
    ({"data": None}, "data is a NoneType"),
    ({"data": changed(images=PAIR.images[:0], labels=PAIR.labels[:0])}, "n > 0"),
    ({"data": changed(images=PAIR.images[:, :27])}, "expected .n, 28, 28, 1"),
    ({"data": changed(images=PAIR.images.astype(np.int64))}, "int64: expected uint8"),
    ({"data": changed(images=np.full(PAIR.images.shape, np.nan))}, "nan"),
    ({"data": changed(images=np.full(PAIR.images.shape, 2.0))}, r"floats in \[0, 1\]"),
    ({"data": changed(labels=PAIR.labels[:1])}, "expected 2 integers"),
    ({"data": changed(labels=PAIR.labels - 1)}, "0 to 9"),
    ({"data": changed(labels=PAIR.labels + 0.5)}, "float64"),
    ({"strategy": "mirrored"}, "strategy is a str"),
    ({"init_from": "model.keras"}, "init_from is a str"),
    ({"watch": 3}, "watch is a int"),
    ({"report": 3}, "report is a int"),
    ({"jit_compile": "no"}, "True or False"),
    ({"tensorboard": 1}, "True or False"),
    ({"details": {"a": object()}}, "details"),
    ({"details": {"a": float("nan")}}, "details"),
]


@pytest.mark.parametrize(("argument", "told"), TRAINING)
def test_what_train_cannot_take_is_told_before_anything_is_written(
    argument: dict[str, Any], told: str, tmp_path: Path
) -> None:
    given = {"recipe": RECIPE, "run": RunDir(tmp_path / "run"), "data": PAIR, **argument}
    with pytest.raises(InputError, match=told) as caught:
        train(**given, verbose=0)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


WRONG_FIELDS = [(name, "no") for name in ("clip_noise", "augment", "round_weights", "joint_batch")]
WRONG_FIELDS += [(name, 10**400) for name in ("clean_weight", "learning_rate", "noise_stddev")]
WRONG_FIELDS += [("learning_rate_drops", 3), ("penalties", 3), ("attack", "pgd"), ("model", 3)]
WRONG_FIELDS += [("dataset", None)]
WRONG_FIELDS += [pytest.param("epochs", 10**5000, id="epochs of many digits")]


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_a_recipe_of_the_wrong_types_is_told_in_a_line(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"\b{name}") as caught:
        dataclasses.replace(RECIPE, **{name: value})
    assert len(str(caught.value)) < 300


AUDIT = [(name, value) for name in ("eps", "minutes", "seed") for value in ("x", None, [], {}, -1)]
AUDIT += [("eps", 1.5), ("eps", float("nan")), ("minutes", float("inf")), ("minutes", 0)]
AUDIT += [(name, 3) for name in ("attack", "pixels", "report", "closer_look", "trust_code")]
AUDIT += [("batch_size", value) for value in (0, -1, 1.5, "x", [])]
AUDIT += [("phases", value) for value in (3, [], [3], "x")]
AUDIT += [("phases", [Phase(SMALL, name=name)]) for name in ("a/b", "..", "x" * 300, "a\0", 3)]
AUDIT += [("folder", value) for value in (3, [], "a\0b", "x" * 5000, "/etc/passwd/x", "~nosuch/x")]
AUDIT += [("images", [[1], [1, 2]]), ("labels", [[1], [1, 2]]), ("images", {}), ("labels", None)]


@pytest.mark.parametrize(("name", "value"), AUDIT)
def test_what_audit_cannot_take_is_told_in_a_line(name: str, value: Any) -> None:
    given = {"images": IMAGES, "labels": [0, 1], "eps": 0.1, "attack": SMALL, name: value}
    with pytest.raises(InputError) as caught:
        audit(LINEAR, **given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


SHAPES = [3, "abc", (4, 4), (4, 4, 0), (4, 4, 1.5), (10**9, 10**9, 1), None]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_shape_that_is_none_is_told_in_a_line(shape: Any) -> None:
    with pytest.raises(InputError, match="image_shape"):
        as_classifier(LINEAR, image_shape=shape)


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("limit", "class_names") for value in (1.5, -1, {}, b"x", [3])],
)
def test_what_read_own_images_cannot_take_is_told_in_a_line(
    name: str, value: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        read_own_images(tmp_path, **{name: value})


@pytest.mark.parametrize("eps", [{}, object(), "0.1", None, True])
def test_the_preset_takes_numbers(eps: Any) -> None:
    with pytest.raises(InputError, match="eps"):
        strong_attack(eps)
