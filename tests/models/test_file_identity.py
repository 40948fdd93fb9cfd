"""A model's identity, told from its file alone."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from alp_repro import runs
from alp_repro.models import MODELS, build_model
from alp_repro.models.file_identity import file_identity
from alp_repro.models.identity import architecture_hash
from tests.marks import slow_unless


@pytest.mark.parametrize("name", slow_unless(["lenet", "resnet20_v2"], MODELS))
@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_it_is_that_of_the_model(
    name: str, pixel_range: tuple[float, float], tmp_path: Path
) -> None:
    built = build_model(
        name, image_shape=(32, 32, 3), num_classes=5, width=2, pixel_range=pixel_range
    )
    rng = np.random.default_rng(0)
    built.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in built.get_weights()])
    runs.save_model(tmp_path / "model.keras", built)
    found = file_identity(tmp_path / "model.keras")
    model = runs.load_model(tmp_path / "model.keras")
    assert found is not None
    assert found.weights == runs.weights_hash(model)
    assert found.architecture == architecture_hash(model)


def small(dtype: str = "float32") -> keras.Model:
    images = keras.Input((4, 4, 1), dtype="float32")
    x = keras.layers.Flatten(dtype=dtype)(images)
    return keras.Model(images, keras.layers.Dense(3, dtype=dtype)(x))


def test_other_models_are_to_be_built(tmp_path: Path) -> None:
    images = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(images)
    softmax = keras.Model(images, keras.layers.Softmax()(keras.layers.Dense(3)(x)))
    nested = keras.Model(images, small()(images))
    for number, model in enumerate((softmax, nested, small("bfloat16"))):
        path = tmp_path / f"{number}.keras"
        model.save(path)
        assert file_identity(path) is None
    (tmp_path / "none.keras").write_bytes(b"no model")
    assert file_identity(tmp_path / "none.keras") is None


@pytest.mark.parametrize("change", ["module", "registered_name"])
def test_a_class_of_the_users_is_no_layer_of_keras(change: str, tmp_path: Path) -> None:
    small().save(tmp_path / "model.keras")
    assert file_identity(tmp_path / "model.keras") is not None
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    config["config"]["layers"][-1][change] = "mine>Dense"
    content["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert file_identity(tmp_path / "model.keras") is None
