"""A further data set is one entry: prepared, loaded, trained on and evaluated with its facts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from alp_repro import evaluate
from alp_repro.data import (
    DATASETS,
    DatasetSpec,
    load_class_names,
    load_evaluation_set,
    load_split,
    prepare,
    split_sizes,
    store,
    unit_scale,
)
from alp_repro.data.source_record import SourceRecord
from alp_repro.errors import InputError
from alp_repro.models import build_model
from experiments.flags import settings
from tests import data_factory

SHAPE, CLASSES = (8, 8, 3), ("round", "square", "star")


def write_toy(data_dir: Path, source: Path, *, skip_corrupt: bool = False) -> SourceRecord:
    del skip_corrupt
    with np.load(source) as arrays:
        splits = {
            split: [
                (index, {"image": image, "label": int(label)})
                for index, (image, label) in enumerate(
                    zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
                )
            ]
            for split in ("train", "test")
        }
    features = {
        "image": tfds.features.Image(shape=SHAPE),
        "label": tfds.features.ClassLabel(names=CLASSES),
    }
    store.store_examples(
        data_dir,
        "toy",
        "1.0.0",
        features=tfds.features.FeaturesDict(features),
        splits=splits,
        description="Shapes.",
    )
    return SourceRecord("shapes in a NumPy file", str(source))


TOY = DatasetSpec(
    name="toy",
    title="Toy shapes",
    image_shape=SHAPE,
    num_classes=len(CLASSES),
    train_size=12,
    test_size=9,
    model="lenet",
    eps=4.0,
    surface_eps=8.0,
    eval_batch_size=7,
    tables=(9,),
    write=write_toy,
    sources="a NumPy file",
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(DATASETS, "toy", TOY)
    arrays = {}
    for seed, (split, per_class) in enumerate((("train", 4), ("test", 3))):
        images, labels = data_factory.class_images(3, per_class, size=8, seed=seed)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(tmp_path / "toy.npz", **arrays)
    return tmp_path / "toy.npz"


def test_it_is_prepared_and_loaded(source: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"toy is not in .* cannot be downloaded.*a NumPy file"):
        load_split("toy", "train", data_dir=tmp_path / "data")
    record = prepare.prepare_from_source(TOY, source, data_dir=tmp_path / "data")
    assert record.summary == "shapes in a NumPy file"
    assert split_sizes("toy", data_dir=tmp_path / "data") == {"train": 12, "test": 9}
    assert load_class_names("toy", data_dir=tmp_path / "data") == CLASSES
    train = load_split("toy", "train", data_dir=tmp_path / "data")
    with np.load(source) as arrays:
        np.testing.assert_array_equal(train.images, arrays["train_images"])
        np.testing.assert_array_equal(train.unit_scale, arrays["train_images"] / np.float32(255))


def test_it_is_evaluated_with_the_facts_of_its_entry(source: Path, tmp_path: Path):
    prepare.prepare_from_source(TOY, source, data_dir=tmp_path / "data")
    values = settings.parse(["--dataset=toy", "--attack=pgd,nb_iter=2"])
    (attack,) = settings.attack_grid(values)
    assert attack.eps == pytest.approx(4 / 255)
    assert settings.eval_batch_size(values, gpu=False) == 7
    recipe = settings.recipe(values)
    assert (recipe.dataset, recipe.model) == ("toy", "lenet")
    everything = load_evaluation_set("toy", num_images="all", data_dir=tmp_path / "data")
    assert everything.indices.tolist() == list(range(9))
    drawn = load_evaluation_set("toy", num_images=5, data_dir=tmp_path / "data")
    np.testing.assert_array_equal(drawn.images, everything.images[drawn.indices])
    model = build_model("lenet", image_shape=TOY.image_shape, num_classes=3, width=2)
    found = evaluate(model, everything.unit_scale, everything.labels, attack=attack, batch_size=9)
    assert found.settings["images"] == everything.digest


def test_the_unit_scale_of_bytes_and_floats():
    np.testing.assert_array_equal(
        unit_scale(np.array([0, 51, 255], np.uint8)), np.array([0, 0.2, 1], np.float32)
    )
    assert unit_scale(np.array([0.0, 0.5])).tolist() == [0.0, 0.5]
    assert unit_scale(np.array([0.0, 0.5])).dtype == np.float32


@pytest.mark.parametrize("count", ["some", 2.5, 0, 1001])
def test_an_evaluation_set_is_a_count_or_all(source: Path, count: object):
    with pytest.raises(InputError, match=f'^{count} evaluation images of toy.*"all"'):
        load_evaluation_set("toy", num_images=count)  # type: ignore[arg-type]


def test_tfds_is_imported_only_when_data_are_read():
    program = "import sys, alp_repro.data, alp_repro; print('tensorflow_datasets' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
