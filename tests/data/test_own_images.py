"""Images of one's own: every common form is read as float32 in [0, 1], the rest is one line."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from alp_repro.data import store
from alp_repro.data.own_arrays import class_indices, unit_images
from alp_repro.data.own_images import read_own_images
from alp_repro.errors import InputError

GENERATOR = np.random.default_rng(0)
BYTES = GENERATOR.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
UNIT = BYTES.astype(np.float32) / np.float32(255)


@pytest.mark.parametrize(
    "images",
    [BYTES, BYTES.astype(np.int64), BYTES.astype(np.float64), UNIT, UNIT.astype(np.float64)],
    ids=["uint8", "int64", "floats to 255", "unit float32", "unit float64"],
)
def test_every_form_is_the_same_images(images: np.ndarray) -> None:
    found, _ = unit_images(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, UNIT, atol=1e-7)


def test_a_channel_axis_is_added() -> None:
    found, notes = unit_images(BYTES[..., 0])
    assert found.shape == (6, 4, 5, 1)
    assert any("channel axis" in note for note in notes)


@pytest.mark.parametrize(
    "labels",
    [LABELS, LABELS[:, None], LABELS.astype(np.float32), np.eye(3)[LABELS]],
    ids=["integers", "a column", "floats", "one-hot"],
)
def test_every_form_is_the_same_labels(labels: np.ndarray) -> None:
    found, _ = class_indices(labels, 6)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, LABELS)


@pytest.mark.parametrize(("x", "y"), [("x_test", "y_test"), ("images", "labels"), ("X", "y")])
def test_npz_under_common_names(x: str, y: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **{x: BYTES, y: LABELS})
    found = read_own_images(tmp_path / "data.npz", limit=4)
    np.testing.assert_array_equal(found.images, UNIT[:4])
    np.testing.assert_array_equal(found.labels, LABELS[:4])


def test_the_test_split_is_taken_where_there_are_two(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=BYTES[:1], y_train=[9], x_test=BYTES, y_test=LABELS)
    assert len(read_own_images(tmp_path / "d.npz").labels) == 6


def test_a_file_with_two_pairs_tells_which_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=BYTES[::-1], y=LABELS[::-1], x_test=BYTES, y_test=LABELS)
    found = read_own_images(tmp_path / "d.npz")
    np.testing.assert_array_equal(found.images, UNIT)
    assert any("x_test and y_test" in note and "x and y" in note for note in found.notes)


def test_a_part_of_a_file_sorted_by_class_has_every_class(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=BYTES, y=np.sort(LABELS))
    found = read_own_images(tmp_path / "d.npz", limit=3)
    assert found.labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found.images, UNIT[[0, 2, 4]])
    assert any("0: 1, 1: 1, 2: 1" in note for note in found.notes)


@pytest.mark.parametrize(
    ("names", "labels"),
    [(("cat", "dog", "eel"), (0, 1, 2)), (("2", "10", "0"), (2, 10, 0))],
    ids=["names in order", "numbers"],
)
def test_a_folder_by_class(names, labels, tmp_path: Path) -> None:
    for place, name in enumerate(names):
        (tmp_path / name).mkdir()
        for i in range(2):
            png = tf.io.encode_png(BYTES[2 * place + i]).numpy()
            (tmp_path / name / f"{i}.png").write_bytes(png)
    found = read_own_images(tmp_path, limit=5)
    assert len(found.labels) == 5
    assert set(found.labels[:3].tolist()) == set(labels)
    by_label = dict(zip(labels, range(3), strict=True))
    for image, label in zip(found.images[:3], found.labels[:3], strict=True):
        np.testing.assert_array_equal(image, UNIT[2 * by_label[int(label)]])


def test_a_data_set_by_name(monkeypatch) -> None:
    from alp_repro.data import load
    from alp_repro.data.images import Images

    given = Images(BYTES, np.sort(LABELS).astype(np.int32), np.arange(6), "here")

    def load_split(*_: object, limit: int | None = None, **__: object) -> Images:
        return Images(given.images[:limit], given.labels[:limit], given.indices[:limit], "here")

    monkeypatch.setattr(load, "load_split", load_split)
    np.testing.assert_array_equal(read_own_images("mnist").labels, np.sort(LABELS))
    assert read_own_images("mnist", limit=3).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("limit", [None, 3, 5])
def test_a_part_of_a_tfds_set_sorted_by_class_has_every_class(
    limit: int | None, tmp_path: Path
) -> None:
    labels = np.sort(LABELS)
    store.store_examples(
        tmp_path,
        "sorted_shapes",
        "1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=BYTES.shape[1:]),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
        ),
        splits={
            "test": [(i, {"image": BYTES[i], "label": int(labels[i])}) for i in range(len(labels))]
        },
        description="Shapes.",
    )
    found = read_own_images("sorted_shapes", limit=limit, data_dir=tmp_path)
    places = {None: range(6), 3: [0, 2, 4], 5: [0, 2, 4, 1, 3]}[limit]
    np.testing.assert_array_equal(found.labels, labels[places])
    np.testing.assert_array_equal(found.images, UNIT[places])
    counts = ", ".join(f"{label}: {n}" for label, n in enumerate(np.bincount(labels[places])))
    assert any(counts in note for note in found.notes)


def bad_files(folder: Path) -> dict[str, str]:
    np.savez(folder / "names.npz", a=BYTES)
    np.savez(folder / "pickled.npz", x=np.array([{}], object), y=LABELS)
    np.savez(folder / "few.npz", x=BYTES, y=LABELS[:3])
    np.savez(folder / "none.npz", x=BYTES[:0], y=LABELS[:0])
    np.savez(folder / "words.npz", x=BYTES, y=np.array(list("abcabc")))
    np.savez(folder / "negative.npz", x=UNIT - 0.5, y=LABELS)
    np.savez(folder / "nan.npz", x=UNIT * np.nan, y=LABELS)
    np.savez(folder / "halves.npz", x=BYTES, y=LABELS + 0.5)
    (folder / "text.npz").write_text("no file")
    whole = (folder / "few.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez_compressed(folder / "zlib.npz", x=BYTES, y=LABELS)
    damaged = bytearray((folder / "zlib.npz").read_bytes())
    damaged[60:80] = b"\xff" * 20
    (folder / "zlib.npz").write_bytes(damaged)
    for name, header in {"tokens.npz": b"{'descr': (\n", "parsed.npz": b"{" * 300}.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
            archive.writestr("x.npy", content)
            archive.writestr("y.npy", content)
    (folder / "empty").mkdir()
    return {
        "names.npz": "arrays a: .*x_test and y_test",
        "pickled.npz": "allow_pickle",
        "few.npz": "for 6 images",
        "none.npz": "n > 0",
        "words.npz": "class indices",
        "negative.npz": "pixel range",
        "nan.npz": "finite pixels",
        "halves.npz": "class indices",
        "text.npz": "not an .npz file",
        "cut.npz": "not an .npz file",
        "zlib.npz": "zlib.npz cannot be read",
        "tokens.npz": "tokens.npz cannot be read",
        "parsed.npz": "parsed.npz cannot be read",
        "empty": "0 folders",
        "nothing.npz": "does not exist",
    }


def test_bad_data_is_one_line(tmp_path: Path) -> None:
    for name, what in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=what) as error:
            read_own_images(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="number of images 0"):
        read_own_images(tmp_path / "few.npz", limit=0)
    with pytest.raises(InputError, match="TFDS"):
        read_own_images("no_such_data_set")
