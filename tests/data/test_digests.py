"""Digests of evaluation images that are kept beside a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alp_repro.data import dataset_spec, digests, load, prepare
from alp_repro.errors import InputError
from tests import data_factory

COUNTS: tuple[load.ImageCount, ...] = (1, 17, 1000, "all")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """CIFAR-10 with 20 test images, which were read once."""
    source = data_factory.make_cifar10(tmp_path, train_per_class=1, test_per_class=2)
    prepare.prepare_from_source(dataset_spec("cifar10"), source, data_dir=tmp_path / "data")
    load.load_split("cifar10", "test", data_dir=tmp_path / "data")
    return tmp_path / "data"


def file_of(data_dir: Path) -> Path:
    (file,) = data_dir.glob("cifar10/*/alp_repro_digests.json")
    return file


def read_images(*_: Any, **__: Any) -> None:
    raise AssertionError("images are read")


def test_they_are_those_of_the_images_and_spare_reading_them(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {
        count: load.load_evaluation_set("cifar10", num_images=count, data_dir=data_dir).digest
        for count in COUNTS
    }
    assert len(set(expected.values())) == len(COUNTS)
    monkeypatch.setattr(load, "load_split", read_images)
    monkeypatch.setattr(load, "split_sizes", read_images)
    for count in COUNTS:
        assert load.evaluation_digest("cifar10", count, data_dir=data_dir) == expected[count]
    assert load.evaluation_split_size("cifar10", data_dir=data_dir) == 20
    with pytest.raises(InputError, match=r"^1001 evaluation images"):
        load.evaluation_digest("cifar10", 1001, data_dir=data_dir)


def test_images_that_were_altered_have_none(data_dir: Path) -> None:
    (file,) = data_dir.glob("cifar10/*/*test*record-*")
    content = bytearray(file.read_bytes())
    content[50] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="was altered since it was written"):
        load.evaluation_digest("cifar10", 17, data_dir=data_dir)


@pytest.mark.parametrize("spoiled", ["another dataset", "no JSON", "gone"])
def test_what_does_not_hold_is_made_again(data_dir: Path, spoiled: str) -> None:
    file = file_of(data_dir)
    right = file.read_text(encoding="utf-8")
    expected = load.evaluation_digest("cifar10", 17, data_dir=data_dir)
    if spoiled == "another dataset":
        wrong = {**json.loads(right), "dataset": "0" * 16, "first": ["0" * 16] * 1000}
        file.write_text(json.dumps(wrong), encoding="utf-8")
    elif spoiled == "no JSON":
        file.write_text(right[:100], encoding="utf-8")
    else:
        file.unlink()
    assert load.evaluation_digest("cifar10", 17, data_dir=data_dir) == expected
    assert file.read_text(encoding="utf-8") == right


def test_a_dataset_without_checksums_keeps_none(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 4, 1), np.uint8)
    digests.save(tmp_path, images, np.zeros(2, np.int32), np.arange(2))
    assert not list(tmp_path.iterdir())
    assert digests.load(tmp_path, split="test") is None
