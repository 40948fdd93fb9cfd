"""The one store: heat maps and surfaces are validated whole, and locked while one works on them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alp_repro import files
from alp_repro.errors import InputError
from alp_repro.evaluation import heat_maps, landscape
from alp_repro.runs import RunDir

STORED = Path(__file__).parent.parent / "stored"
PLANE = landscape.Plane(radius=38.25 / 255, resolution=5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"eps_iters": np.array([np.nan, 0.1])}, "eps_iters: .*positive and finite"),
        ({"eps_iters": np.array([0.1])}, r"eps_iters.*float64 \[[12]\].*float64 \[[12]\]"),
        ({"nb_iters": np.array([4, 2])}, "nb_iters: .*ascending"),
        ({"columns": 7}, "7 of 2 step sizes"),
        ({"columns": 0}, "0 of 2 step sizes"),
        ({"broken": np.ones((2, 2, 40))}, "broken.*float64"),
        ({"broken": np.ones((2, 2, 39), bool)}, "settings .* different num_images"),
        ({"settings": {"eps_iters": [0.3]}}, "settings .* different eps_iters"),
        ({"sessions": [1]}, "sessions.* 0: .*object"),
    ],
)
def test_parts_of_a_map_that_do_not_fit_are_one_line(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    (stored,) = (STORED / "heat_maps").glob("*_2x2_*.npz")
    heat_maps.save_heat_map(
        tmp_path / "a.npz", dataclasses.replace(heat_maps.load_heat_map(stored), **changes)
    )
    with pytest.raises(InputError, match=told) as caught:
        heat_maps.load_heat_map(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"losses": np.full((2, 5, 5), np.nan, np.float32)}, "not finite"),
        ({"losses": np.zeros((2, 5, 4), np.float32)}, r"losses.*float32 \[n, 5, 5\]"),
        ({"labels": np.zeros(3, np.int32)}, r"labels.*int32 \[[23]\].*int32 \[[23]\]"),
        ({"indices": np.array([7, 8])}, "settings .* different indices"),
        ({"settings": 3}, "settings.*object"),
    ],
)
def test_parts_of_surfaces_that_do_not_fit_are_one_line(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    (stored,) = (STORED / "runs" / "mnist" / "clp" / "surfaces").glob("*.npz")
    found = landscape.load_surfaces(stored, PLANE)
    landscape.save_surfaces(tmp_path / "a.npz", dataclasses.replace(found, **changes))
    with pytest.raises(InputError, match=told) as caught:
        landscape.load_surfaces(tmp_path / "a.npz", PLANE)
    assert "\n" not in str(caught.value)


def test_surfaces_are_locked_while_they_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process that asks for them is told so; then they are there, with provenance."""
    run = RunDir(tmp_path / "run")
    shutil.copytree(STORED / "runs" / "mnist" / "clp", run.path)
    plane = dataclasses.replace(PLANE, seed=1)
    images = np.random.default_rng(0).random((2, 28, 28, 1), dtype=np.float32)
    asked = (run, images, np.array([3, 4]), np.array([0, 9]))
    refused: list[str] = []
    original = landscape.loss_surfaces

    def meanwhile(*args: Any, **options: Any) -> landscape.Surfaces:
        with pytest.raises(InputError, match="another process is working on") as caught:
            landscape.surfaces_of_run(*asked, plane=plane)
        refused.append(str(caught.value))
        return original(*args, **options)

    monkeypatch.setattr(landscape, "loss_surfaces", meanwhile)
    found = landscape.surfaces_of_run(*asked, plane=plane)
    assert len(refused) == 1 and len(found.sessions) == 1
    assert {"date", "seconds"} <= set(found.sessions[0])
    monkeypatch.setattr(landscape, "loss_surfaces", None)
    again = landscape.surfaces_of_run(*asked, plane=plane)
    np.testing.assert_array_equal(again.losses, found.losses)


def test_surfaces_of_a_model_that_was_replaced_are_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(STORED / "runs" / "mnist" / "clp", run.path)
    images = np.random.default_rng(0).random((1, 28, 28, 1), dtype=np.float32)
    asked = (run, images, np.array([3]), np.array([0]))
    first = landscape.surfaces_of_run(*asked, plane=PLANE)
    model = landscape.runs.load_model(run.model)
    model.set_weights([1.5 * weight for weight in model.get_weights()])
    landscape.runs.save_model(run.model, model)
    second = landscape.surfaces_of_run(*asked, plane=PLANE)
    assert np.abs(first.losses - second.losses).max() > 1e-3
    assert files.read_json(run.recipe)["weights"] == first.settings["model"]
