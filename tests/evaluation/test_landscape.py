"""Loss surfaces: against losses computed point by point, and what they must not depend on."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.evaluation import landscape
from alp_repro.evaluation.landscape import Plane


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input((5, 4, 2)),
            keras.layers.Conv2D(4, 3, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (4, 5, 4, 2), dtype=np.uint8)


_LABELS = np.array([0, 2, 1, 2])


def _loss(model: keras.Model, image: np.ndarray, label: int) -> float:
    logits = model(image[None]).numpy()[0].astype(np.float64)
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])


@pytest.mark.parametrize("clip", [False, True])
def test_losses_are_those_of_the_points_one_by_one(
    model: keras.Model, images: np.ndarray, clip: bool
):
    plane = Plane(radius=0.3, resolution=5, seed=4, clip=clip)
    found = landscape.loss_surfaces(model, images, _LABELS, plane=plane, batch_size=7)
    assert found.losses.shape == (4, 5, 5) and found.losses.dtype == np.float32
    offsets = [-0.3, -0.15, 0.0, 0.15, 0.3]
    for i, (image, label) in enumerate(zip(images / 255, _LABELS, strict=True)):
        u, v = plane.directions(image.shape, i)
        for j, k in [(0, 0), (0, 4), (1, 3), (4, 2)]:
            point = image + offsets[j] * u + offsets[k] * v
            point = np.clip(point, 0, 1) if clip else point
            assert found.losses[i, j, k] == pytest.approx(_loss(model, point, label), abs=1e-5)
        assert found.losses[i, 2, 2] == pytest.approx(_loss(model, image, label), abs=1e-5)


def test_directions_are_signs_that_depend_on_seed_and_image_alone():
    shape = (28, 28, 1)
    u, v = Plane(radius=0.1, resolution=11, seed=5).directions(shape, 3)
    assert u.shape == shape and set(np.unique(u)) == {-1.0, 1.0}
    again = Plane(radius=0.2, resolution=7, seed=5).directions(shape, 3)
    np.testing.assert_array_equal((u, v), again)
    others = [
        v,
        Plane(radius=0.1, seed=6).directions(shape, 3)[0],
        Plane(radius=0.1, seed=5).directions(shape, 4)[0],
    ]
    for other in others:
        # 784 fair signs: agreement in a half, give or take five standard deviations.
        assert 0.41 < np.mean(u == other) < 0.59


def test_an_image_has_the_same_surface_in_other_company(model: keras.Model, images: np.ndarray):
    plane = Plane(radius=0.3, resolution=9)
    every = landscape.loss_surfaces(model, images, _LABELS, plane=plane)
    last = landscape.loss_surfaces(
        model, images[3:], _LABELS[3:], plane=plane, indices=np.array([3])
    )
    np.testing.assert_array_equal(every.losses[3], last.losses[0])


def test_a_linear_model_has_a_surface_without_maxima_and_a_bump_has_one():
    side = np.linspace(-1, 1, 21)
    a, b = np.meshgrid(side, side, indexing="ij")
    assert landscape.local_maxima(a + b).sum() == 0
    assert landscape.local_maxima(np.zeros((21, 21))).sum() == 0
    found = landscape.local_maxima(-((a - 0.1) ** 2) - (b + 0.2) ** 2)
    assert list(zip(*np.nonzero(found), strict=True)) == [(11, 8)]
    # Maxima of cos·cos lie where both are 1 or both are -1: here at 0, ±0.5 (±1 is the edge).
    waves = np.cos(2 * np.pi * a) * np.cos(2 * np.pi * b)
    assert landscape.local_maxima(waves).sum() == 5
    assert landscape.local_maxima(np.zeros((3, 3))).sum() == 0
    # Rounding has no maxima, and hills of the same shape that are higher have.
    assert landscape.local_maxima(1e-6 * waves).sum() == 0
    assert landscape.local_maxima(1e-3 * waves).sum() == 5


def test_the_image_is_a_maximum_where_all_around_it_is_lower():
    bump = -np.add.outer(np.linspace(-1, 1, 21) ** 2, np.linspace(-1, 1, 21) ** 2)
    assert landscape.maximum_at_image(bump)
    assert not landscape.maximum_at_image(-bump)
    assert not landscape.maximum_at_image(np.zeros((21, 21)))
    assert not landscape.maximum_at_image(np.roll(bump, 1, axis=0))
    higher_far_off = bump.copy()
    higher_far_off[0, 0] = 9
    assert landscape.maximum_at_image(higher_far_off)
    assert not landscape.maximum_at_image(bump[:20, :20])  # no grid point is the image


def test_surfaces_are_kept_beside_the_model(
    model: keras.Model, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = runs.RunDir(tmp_path / "clp")
    run.path.mkdir(parents=True)
    runs.save_model(run.model, model)
    files.write_json(run.recipe, {"weights": runs.weights_hash(model)})
    plane, indices = Plane(radius=0.3, resolution=5), np.arange(4)
    first = landscape.surfaces_of_run(run, images, _LABELS, indices, plane=plane)

    def computed(*args: object, **options: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(landscape, "loss_surfaces", computed)
    again = landscape.surfaces_of_run(run, images, _LABELS, indices, plane=plane)
    np.testing.assert_array_equal(first.losses, again.losses)
    # Another plane, other images and other weights are other results.
    with pytest.raises(AssertionError, match="computed again"):
        landscape.surfaces_of_run(
            run, images, _LABELS, indices, plane=Plane(radius=0.3, resolution=5, seed=1)
        )
    with pytest.raises(AssertionError, match="computed again"):
        landscape.surfaces_of_run(run, images[::-1], _LABELS, indices, plane=plane)
    other = keras.models.clone_model(model)
    other.set_weights([1.01 * weight for weight in model.get_weights()])
    runs.save_model(run.model, other)
    with pytest.raises(AssertionError, match="computed again"):
        landscape.surfaces_of_run(run, images, _LABELS, indices, plane=plane)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": 0.1, "resolution": 1}, "resolution 1"),
        ({"radius": 0.0}, "radius 0"),
        ({"radius": float("nan")}, "radius nan"),
        ({"radius": 0.1, "resolution": 5.5}, "resolution 5.5: .*whole number"),
        ({"radius": 0.1, "resolution": 10**9}, "whole number from 2 to 10000"),
        ({"radius": 0.1, "seed": -1}, "seed -1"),
    ],
)
def test_bad_planes_are_refused(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        Plane(**settings)


def test_labels_that_do_not_fit_are_refused(model: keras.Model, images: np.ndarray):
    plane = Plane(radius=0.1, resolution=3)
    with pytest.raises(InputError, match=r"labels of shape \(2,\).*integers"):
        landscape.loss_surfaces(model, images, _LABELS[:2], plane=plane)
    with pytest.raises(InputError, match="classes 0 to 2"):
        landscape.loss_surfaces(model, images, _LABELS + 1, plane=plane)


def test_a_damaged_file_is_named(model: keras.Model, images: np.ndarray, tmp_path: Path):
    run = runs.RunDir(tmp_path)
    runs.save_model(run.model, model)
    files.write_json(run.recipe, {"weights": runs.weights_hash(model)})
    arguments = (run, images, _LABELS, np.arange(4))
    landscape.surfaces_of_run(*arguments, plane=Plane(radius=0.3, resolution=3))
    (path,) = (tmp_path / "surfaces").glob("*.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="truncated"):
        landscape.surfaces_of_run(*arguments, plane=Plane(radius=0.3, resolution=3))
