"""Images, labels and numbers at the door: taken in every honest form, refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro.attacks import PGD
from alp_repro.errors import InputError
from alp_repro.evaluation import evaluate
from alp_repro.evaluation.heat_maps import heat_map
from alp_repro.evaluation.landscape import Plane, loss_surfaces
from tests.attack_factory import attack_of

ATTACK = PGD(eps=0.05, eps_iter=0.02, nb_iter=2, restarts=2)

BAD_INPUT: list[tuple[Callable[[np.ndarray, np.ndarray], dict[str, Any]], str]] = [
    (lambda x, y: {"images": x[0]}, r"images of shape \(8, 8, 1\)"),
    (lambda x, y: {"images": x[:0], "labels": y[:0]}, r"images of shape \(0, 8, 8, 1\)"),
    (lambda x, y: {"images": (x * 255).astype(np.int64)}, "images of type int64: .*uint8"),
    (lambda x, y: {"images": x.astype(str)}, "images of type <U32"),
    (lambda x, y: {"images": x * 255}, r"images in \[0, 255\]"),
    (lambda x, y: {"images": x - 0.5}, r"images in \[-0.5, 0.5\]"),
    (lambda x, y: {"images": with_pixel(x, np.nan)}, "image 7 of 40 has values that are not"),
    (lambda x, y: {"images": with_pixel(x, np.inf)}, "image 7 of 40 has values that are not"),
    (lambda x, y: {"images": with_pixel(x.astype(float), 1e300)}, "image 7 of 40"),
    (lambda x, y: {"images": x[:, :7]}, r"images of shape \(8, 8, 1\), got \(7, 8, 1\)"),
    (lambda x, y: {"images": np.repeat(x, 3, axis=3)}, r"images of shape .*\(8, 8, 3\)"),
    (lambda x, y: {"labels": y[:-1]}, r"labels of shape \(39,\).*40 integers"),
    (lambda x, y: {"labels": y[:, None]}, r"labels of shape \(40, 1\)"),
    (lambda x, y: {"labels": y.astype(np.float32)}, "type float32"),
    (lambda x, y: {"labels": y + 5}, "the model has classes 0 to 9"),
    (lambda x, y: {"labels": y - 5}, "the model has classes 0 to 9"),
    (lambda x, y: {"labels": y.astype(np.int64) + 2**32}, r"labels in \[4294967296, .*class"),
    (lambda x, y: {"batch_size": 0}, "batch_size 0"),
    (lambda x, y: {"batch_size": -5}, "batch_size -5"),
    (lambda x, y: {"batch_size": 2.5}, "batch_size 2.5: .*whole number"),
    (lambda x, y: {"batch_size": 10**10}, "batch_size 10000000000: .*from 1 to 1000000"),
    (lambda x, y: {"seed": -1}, "seed -1"),
    (lambda x, y: {"seed": 2**31}, "seed 2147483648"),
    (lambda x, y: {"seed": True}, "seed True"),
    (lambda x, y: {"indices": np.arange(3)}, "indices of shape"),
    (lambda x, y: {"indices": np.arange(40) / 2}, "indices .* float64"),
    (lambda x, y: {"indices": -np.arange(40)}, r"indices in \[-39, 0\]"),
    (lambda x, y: {"images": [[1.0], [1.0, 0.5]]}, "images.*array"),
    (lambda x, y: {"images": x[..., :0]}, r"images of shape \(40, 8, 8, 0\)"),
    (lambda x, y: {"folder": 3}, "folder 3: .*path"),
    (lambda x, y: {"folder": "a\0b"}, "folder .*path"),
    (lambda x, y: {"details": {"loss": np.float32(1)}}, "details: .*float32"),
    (lambda x, y: {"details": {"loss": float("nan")}}, "details: NaN .*JSON"),
    (lambda x, y: {"model": lambda images: images}, r"the model .*\(.*, 8, 8, 1\).*logits"),
    (lambda x, y: {"folder": "~nobody-of-this-name/x"}, "~nobody-of-this-name"),
]


def with_pixel(images: np.ndarray, value: float) -> np.ndarray:
    changed = images.copy()
    changed[7, 2, 3] = value
    return changed


@pytest.mark.parametrize(("bad", "message"), BAD_INPUT)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_bad_input_is_refused_in_one_line(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    tmp_path: Path,
    bad: Any,
    message: str,
) -> None:
    given = {"model": model, "images": images, "labels": labels, "folder": tmp_path}
    given |= bad(images, labels)
    with pytest.raises(InputError, match=message) as caught:
        evaluate(attack=ATTACK, **given)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []  # refused before anything is written


def test_bytes_are_divided_by_255(model: keras.Model, images: np.ndarray) -> None:
    pixels = np.round(images * 255).astype(np.uint8)
    floats = pixels.astype(np.float32) / np.float32(255)
    labels = np.argmax(model(floats), axis=1)
    found = evaluate(model, pixels, labels, attack=ATTACK, batch_size=40, record_losses=True)
    expected = evaluate(model, floats, labels, attack=ATTACK, batch_size=40, record_losses=True)
    assert found.settings == expected.settings
    np.testing.assert_array_equal(found.losses, expected.losses)


def test_numpys_numbers_are_kept_and_found_as_plain_ones(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, tmp_path: Path
) -> None:
    strange = PGD(
        eps=np.float32(0.0625),
        eps_iter=np.float64(0.03125),
        nb_iter=np.int32(1),
        restarts=np.int64(1),
    )
    found = evaluate(
        model,
        images,
        labels,
        attack=strange,
        seed=np.int64(3),
        batch_size=np.int16(40),
        indices=list(range(40)),
        folder=tmp_path,
    )
    plain = PGD(eps=0.0625, eps_iter=0.03125, nb_iter=1)
    again = evaluate(model, images, labels, attack=plain, seed=3, batch_size=40, folder=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 1
    assert found.settings == again.settings and len(again.sessions) == 1


def test_a_tilde_is_the_home_folder(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    evaluate(model, images, labels, attack=ATTACK, batch_size=40, folder="~/results")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.parametrize("method", ["pgd", "apgd"])
def test_a_ball_of_radius_0_leaves_the_clean_accuracy(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, method: Any
) -> None:
    attack = attack_of(method, eps=0, eps_iter=0.02, nb_iter=5, restarts=3)
    record = evaluate(model, images, labels, attack=attack, batch_size=40)
    assert record.clean_accuracy == 37 / 40
    assert record.accuracy_at(1) == record.accuracy_at(3) == 37 / 40


def test_a_batch_is_no_larger_than_the_work(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alp_repro.attacks import programs

    sizes = []
    original = programs.attack_program

    def noting(*args: Any, execution: Any, **options: Any) -> Any:
        sizes.append(execution.batch_size)
        return original(*args, execution=execution, **options)

    monkeypatch.setattr(programs, "attack_program", noting)
    few = evaluate(model, images[:5], labels[:5], attack=ATTACK)
    same = evaluate(model, images[:5], labels[:5], attack=ATTACK, batch_size=10)
    assert sizes == [10, 10]
    assert few.settings["batch_size"] == 200  # as asked: results of other counts are still found
    np.testing.assert_array_equal(few.first_break, same.first_break)


# What each way of looking at a model takes beside the model, images and labels.
LOOKS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "evaluate": (evaluate, {"attack": ATTACK}),
    "heat_map": (heat_map, {"attack": ATTACK, "eps_iters": [0.02], "nb_iters": [1, 2]}),
    "loss_surfaces": (loss_surfaces, {"plane": Plane(radius=0.1, resolution=3)}),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("bad", [0, 2.5, True, 10**10, "7"])
def test_every_door_checks_the_batch_size(
    look: str, bad: Any, model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    function, options = LOOKS[look]
    with pytest.raises(InputError, match=r"batch_size .*whole number from 1"):
        function(model, images, labels, batch_size=bad, **options)


@pytest.mark.parametrize("look", ["evaluate", "heat_map"])
def test_every_door_checks_seed_folder_and_details(
    look: str,
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function, options = LOOKS[look]
    for bad in ({"seed": -1}, {"seed": 1.5}, {"folder": 3}, {"details": {"a": np.int64(1)}}):
        with pytest.raises(InputError):
            function(model, images, labels, **options, **bad)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    function(model, images[:5], labels[:5], folder="~/x", seed=np.int64(3), **options)
    assert not Path("~").exists() and list((tmp_path / "home" / "x").glob("*.npz"))


class Counting(keras.Model):
    """A function of its images that counts how often it was asked."""

    def __init__(self, inner: keras.Model) -> None:
        super().__init__()
        self.inner = inner
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs: Any) -> Any:
        self.calls.assign_add(1.0)
        return self.inner(inputs)


@pytest.mark.parametrize("look", LOOKS)
def test_weights_are_the_same_afterwards(
    look: str, model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    function, options = LOOKS[look]
    counting = Counting(model)
    counting(images[:1])
    function(counting, images[:5], labels[:5], **options)
    assert float(counting.calls) == 1.0


@pytest.mark.parametrize("nb_iters", [[1.5], [True], [0, 3], [10**12], ["3"]])
def test_a_heat_maps_counts_are_whole_numbers(
    nb_iters: list[Any], model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    with pytest.raises(InputError, match=r"heat map iterations .*whole number from 1"):
        heat_map(model, images, labels, attack=ATTACK, eps_iters=[0.02], nb_iters=nb_iters)


def test_a_heat_map_of_a_point_is_refused(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    point = PGD(eps=0.0, eps_iter=0.0, nb_iter=1)
    with pytest.raises(InputError, match="heat map eps_iter 0"):
        heat_map(model, images, labels, attack=point, eps_iters=[0.0], nb_iters=[1])


@pytest.mark.parametrize("changed", [{"eps": 10**400}, {"restarts": -(10**400)}])
def test_numbers_of_any_length_are_one_short_line(changed: dict[str, Any]) -> None:
    with pytest.raises(InputError) as refused:
        PGD(**{"eps": 0.1, "eps_iter": 0.1, "nb_iter": 1, **changed})
    assert len(str(refused.value)) < 150
