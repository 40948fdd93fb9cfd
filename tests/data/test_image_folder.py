"""Which folder is which label, what takes none, and images that do not fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from alp_repro.data.own_images import read_own_images
from alp_repro.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)


def write(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(tf.io.encode_png(pixels).numpy())


def folder_of(path: Path, names: list[str]) -> Path:
    """Folders with one image each, the i-th being PIXELS[i]."""
    for name, pixels in zip(names, PIXELS, strict=False):
        write(path / name / "image.png", pixels)
    return path


def labels_of(path: Path, names: list[str], class_names=None) -> tuple[dict[str, int], str]:
    """The label that each folder got, by its image, and the notes."""
    found = read_own_images(path, class_names=class_names)
    by_image = {
        image.tobytes(): int(label) for image, label in zip(found.images, found.labels, strict=True)
    }
    unit = PIXELS.astype(np.float32) / np.float32(255)
    labels = {name: by_image[image.tobytes()] for name, image in zip(names, unit, strict=False)}
    return labels, " ".join(found.notes)


NUMBERS = [str(i) for i in range(12)]


def test_numbers_are_labels_and_the_other_order_is_told(tmp_path: Path) -> None:
    labels, notes = labels_of(folder_of(tmp_path, NUMBERS), NUMBERS)
    assert labels == {name: int(name) for name in NUMBERS}
    assert "10 10" in notes
    assert "10 is label 2" in notes
    assert "class_names=sorted" in notes


def test_sorted_is_as_keras_has_it(tmp_path: Path) -> None:
    labels, _ = labels_of(folder_of(tmp_path, NUMBERS), NUMBERS, "sorted")
    assert labels == {name: sorted(NUMBERS).index(name) for name in NUMBERS}


def test_where_the_orders_are_one_nothing_is_warned_of(tmp_path: Path) -> None:
    _, notes = labels_of(folder_of(tmp_path, NUMBERS[:3]), NUMBERS[:3])
    assert "0 0, 1 1, 2 2" in notes
    assert "Keras" not in notes


@pytest.mark.parametrize("order", [["eel", "cat", "dog"], ["fox", "eel", "cat", "dog"]])
def test_a_named_order_decides(order: list[str], tmp_path: Path) -> None:
    names = ["cat", "dog", "eel"]
    labels, notes = labels_of(folder_of(tmp_path, names), names, order)
    assert labels == {name: order.index(name) for name in names}
    assert f"{order.index('eel')} eel" in notes


def test_the_mapping_of_names_is_shown(tmp_path: Path) -> None:
    _, notes = labels_of(folder_of(tmp_path, ["dog", "cat"]), ["dog", "cat"])
    assert "0 cat, 1 dog" in notes
    assert "0: 1, 1: 1" in notes


def test_what_others_left_there_takes_no_label(tmp_path: Path) -> None:
    folder_of(tmp_path, ["cat", "dog"])
    for name in ("__MACOSX", "@eaDir", ".hidden"):
        write(tmp_path / name / "image.png", PIXELS[0])
    (tmp_path / "aardvark").mkdir()
    (tmp_path / "cat" / "._image.png").write_bytes(b"resource fork")
    (tmp_path / "cat" / "photo.webp").write_bytes(b"RIFF")
    labels, notes = labels_of(tmp_path, ["cat", "dog"])
    assert labels == {"cat": 0, "dog": 1}
    for what in ("__MACOSX", "@eaDir", "aardvark", ".webp"):
        assert what in notes


@pytest.mark.parametrize("names", [["1", "²"], ["1", "01"], ["٣", "1"]])
def test_names_that_only_look_like_numbers_are_names(names: list[str], tmp_path: Path) -> None:
    labels, _ = labels_of(folder_of(tmp_path, names), names)
    assert labels == {name: sorted(names).index(name) for name in names}


@pytest.mark.parametrize(
    ("order", "what"),
    [
        (["cat"], "no dog"),
        (["cat", "dog", "cat"], "cat is given twice"),
        ("numbered", "numbers, got cat, dog"),
    ],
)
def test_an_order_that_does_not_fit(order, what: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=what):
        read_own_images(folder_of(tmp_path, ["cat", "dog"]), class_names=order)


def test_an_order_is_of_folders_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=PIXELS, y=np.arange(12))
    with pytest.raises(InputError, match=r"class_names .*d\.npz"):
        read_own_images(tmp_path / "d.npz", class_names=["cat", "dog"])


def test_gray_among_rgb_becomes_rgb(tmp_path: Path) -> None:
    folder_of(tmp_path, ["cat", "dog"])
    write(tmp_path / "cat" / "gray.png", PIXELS[5][..., :1])
    found = read_own_images(tmp_path)
    assert found.images.shape == (3, 4, 5, 3)
    gray = np.repeat(PIXELS[5][..., :1], 3, axis=-1).astype(np.float32) / np.float32(255)
    assert sum(np.array_equal(image, gray) for image in found.images) == 1
    assert any("1 of 3 images were gray" in note for note in found.notes)


def test_other_shapes_are_refused_by_name(tmp_path: Path) -> None:
    folder_of(tmp_path, ["cat", "dog"])
    write(tmp_path / "dog" / "wide.png", np.zeros((4, 9, 3), np.uint8))
    with pytest.raises(InputError, match=r"wide\.png is an image of shape \(4, 9, 3\)"):
        read_own_images(tmp_path)


def test_classes_one_level_deeper_are_pointed_at(tmp_path: Path) -> None:
    folder_of(tmp_path / "test", ["cat", "dog"])
    with pytest.raises(InputError, match=r"0 folders of images.*mean .*test"):
        read_own_images(tmp_path)
