"""Results that version 0.1 stored (revision c001d3a) are found, and gone on with.

They were made with `small_model` and, under `runs`, a tiny LeNet on MNIST.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro.attacks import PGD, Attack, programs, strong_attack
from alp_repro.data import load
from alp_repro.evaluation import evaluate, heat_maps, landscape, load_record, store
from alp_repro.runs import RunDir, load_model

STORED = Path(__file__).parent.parent / "stored"
ATTACK = PGD(eps=0.1, eps_iter=0.025, nb_iter=4, restarts=3)
GRID: dict[str, Any] = {
    "attack": PGD(eps=0.1, eps_iter=0.05, nb_iter=1, restarts=2),
    "nb_iters": [2, 4],
    "batch_size": 16,
}


# `strong` as it was when the results were stored.
STRONG_OF_THEN = dataclasses.replace(
    strong_attack(0.05).phases[0].attack, restarts=18, loss="margin", own_step=1.0
)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    shutil.copytree(STORED, tmp_path / "stored")
    return tmp_path / "stored"


@pytest.fixture
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **options: Any) -> Any:
        raise AssertionError("a stored result was not found")

    monkeypatch.setattr(programs, "attack_program", never)
    monkeypatch.setattr(heat_maps, "grid_program", never)
    monkeypatch.setattr(landscape, "loss_surfaces", never)


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (ATTACK, {}),
        (STRONG_OF_THEN, {}),
        (ATTACK, {"record_losses": True, "save_adversarial": True}),
    ],
    ids=["plain", "strong", "losses"],
)
@pytest.mark.usefixtures("nothing_is_computed")
def test_attacks_are_found(
    stored: Path,
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    attack: Attack,
    options: dict[str, bool],
) -> None:
    folder = stored / "attacks"
    found = evaluate(model, images, labels, attack=attack, folder=folder, batch_size=16, **options)
    assert found.complete_to(attack.restarts) and not found.nonfinite_gradients.any()
    assert {p.name: p.read_bytes() for p in folder.glob("[!.]*.npz")} == {
        p.name: p.read_bytes() for p in (STORED / "attacks").glob("*.npz")
    }


def test_an_attack_is_gone_on_with(
    stored: Path, model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    """The restarts that were stored are kept, and equal what is computed now up to rounding.

    They were made on a processor with AVX-512; others add up in another order.
    """
    more = PGD(eps=0.1, eps_iter=0.025, nb_iter=4, restarts=5)
    options: dict[str, Any] = {"attack": more, "batch_size": 16}
    keep = {"record_losses": True, "save_adversarial": True}
    for kept in ({}, keep):
        found = evaluate(model, images, labels, folder=stored / "attacks", **options, **kept)
        fresh = evaluate(model, images, labels, **options, **kept)
        assert len(found.sessions) == 2
        np.testing.assert_array_equal(found.first_break, fresh.first_break)
    assert found.losses is not None and found.losses.shape == (len(images), more.restarts)
    np.testing.assert_allclose(found.losses, fresh.losses, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.adversarial, fresh.adversarial, atol=1e-6)
    assert len(list((stored / "attacks").glob("*.npz"))) == 3


@pytest.mark.usefixtures("nothing_is_computed")
def test_a_finished_heat_map_is_found(
    stored: Path, model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    found = heat_maps.heat_map(
        model, images, labels, folder=stored / "heat_maps", eps_iters=[0.025, 0.05], **GRID
    )
    assert found.complete and len(list((stored / "heat_maps").glob("*.npz"))) == 2


def test_an_unfinished_heat_map_is_gone_on_with(
    stored: Path, model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    options: dict[str, Any] = {"eps_iters": [0.025, 0.05, 0.075], **GRID}
    done: list[int] = []
    found = heat_maps.heat_map(
        model,
        images,
        labels,
        folder=stored / "heat_maps",
        report=lambda columns, _: done.append(columns),
        **options,
    )
    assert done == [2, 3]
    fresh = heat_maps.heat_map(model, images, labels, **options)
    np.testing.assert_array_equal(found.broken, fresh.broken)
    assert len(list((stored / "heat_maps").glob("*.npz"))) == 2


def test_results_of_a_run_are_found(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(stored / "runs" / "mnist" / "clp")
    data = load.load_evaluation_set("mnist", num_images=10)
    attack = PGD(eps=76.5 / 255, eps_iter=2.55 / 255, nb_iter=4, restarts=2)
    found = store.find_record(run, attack=attack, num_images=10)
    assert found is not None and found.complete_to(2)
    np.testing.assert_array_equal(found.labels, data.labels)

    plane = landscape.Plane(radius=38.25 / 255, resolution=5)
    first = (data.images[:2], data.labels[:2], data.indices[:2])
    fresh = landscape.loss_surfaces(
        load_model(run.model), first[0], first[1], plane=plane, indices=first[2]
    )
    monkeypatch.setattr(landscape, "loss_surfaces", None)
    kept = landscape.surfaces_of_run(run, *first, plane=plane)
    np.testing.assert_allclose(kept.losses, fresh.losses, rtol=1e-4, atol=1e-5)


def test_everything_stored_passes_the_checks_of_today() -> None:
    for path in sorted(STORED.glob("**/attacks/*.npz")):
        assert load_record(path).sessions
