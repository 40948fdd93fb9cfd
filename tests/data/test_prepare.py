from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from alp_repro.data import load, prepare, unverified_source
from alp_repro.data.source_record import SourceRecord
from alp_repro.data.sources import safe_pickle
from alp_repro.data.sources.cifar10 import CLASSES, numbered
from alp_repro.errors import InputError
from tests import command_runner, data_factory

REPOSITORY = Path(__file__).resolve().parents[2]


def prepared(name: str, source: Path, data_dir: Path, **options: bool) -> SourceRecord:
    return prepare.prepare_from_source(
        load.dataset_spec(name), source, data_dir=data_dir, **options
    )


def refuse(name: str, source: Path, data_dir: Path, match: str, **options: bool) -> None:
    """Check that the source is refused in one line and that nothing is left behind."""
    with pytest.raises(InputError, match=match) as caught:
        prepared(name, source, data_dir, **options)
    assert "\n" not in str(caught.value)
    assert [path.name for path in data_dir.iterdir()] == [f".{name}.lock"]


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as output:
        for file in sorted(folder.rglob("*")):
            output.write(file, file.relative_to(folder.parent))
    return archive


def tarred(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as output:
        output.add(folder, folder.name)
    return archive


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_factory.make_cifar10(
        tmp_path_factory.mktemp("cifar10"), train_per_class=5, test_per_class=2
    )


@pytest.fixture(scope="module")
def cifar10_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_factory.make_cifar10(
        tmp_path_factory.mktemp("cifar10_python"), train_per_class=5, test_per_class=2, python=True
    )


@pytest.fixture(scope="module")
def tiny_imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_factory.make_tiny_imagenet(
        tmp_path_factory.mktemp("tiny"), train_per_class=2, val_per_class=1
    )


@pytest.fixture
def cifar10_copy(cifar10: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cifar10, tmp_path / cifar10.name)


@pytest.fixture
def tiny_copy(tiny_imagenet: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_imagenet, tmp_path / tiny_imagenet.name)


@pytest.fixture
def png_images(tmp_path: Path) -> Path:
    return data_factory.make_cifar10_images(tmp_path / "images")


# CIFAR-10 in official batches


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["binary", "Python"])
def test_official_cifar10_batches_keep_pixels_and_order(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, packed: bool
):
    folder = request.getfixturevalue("cifar10" if kind == "binary" else "cifar10_python")
    source = tarred(folder, tmp_path / "cifar.tar.gz") if packed else folder
    record = prepared("cifar10", source, tmp_path / "data")
    assert record == SourceRecord(f"{kind} batches, not verified", str(source))
    expected_images, expected_labels = data_factory.class_images(10, 5, size=32, seed=1)
    train = load.load_split("cifar10", "train", data_dir=tmp_path / "data")
    np.testing.assert_array_equal(train.images, expected_images)
    np.testing.assert_array_equal(train.labels, expected_labels)
    assert train.source == record.source
    expected_images, _ = data_factory.class_images(10, 2, size=32, seed=2)
    test = load.load_split("cifar10", "test", data_dir=tmp_path / "data")
    np.testing.assert_array_equal(test.images, expected_images)
    names = load.load_class_names("cifar10", data_dir=tmp_path / "data")
    assert names == data_factory.CIFAR10_CLASSES


def test_an_archive_is_told_by_its_checksum(
    cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = tarred(cifar10, tmp_path / "cifar.tar.gz")
    digest = subprocess.run(["md5sum", source], capture_output=True, text=True, check=True).stdout
    published = (source.stat().st_size, digest.split()[0])
    monkeypatch.setattr("alp_repro.data.sources.cifar10.BINARY_ARCHIVE", published)
    record = prepared("cifar10", source, tmp_path / "data")
    assert record == SourceRecord("official binary archive", str(source), verified=True)
    assert unverified_source("cifar10", data_dir=tmp_path / "data") == ""


def test_a_missing_or_damaged_batch_is_named(cifar10_copy: Path, tmp_path: Path):
    batch = cifar10_copy / "data_batch_3.bin"
    content = batch.read_bytes()
    batch.write_bytes(content[:-1])
    refuse("cifar10", cifar10_copy, tmp_path / "data", r"data_batch_3.bin .*multiple of 3073")
    batch.write_bytes(b"\x0a" + content[1:])
    refuse("cifar10", cifar10_copy, tmp_path / "data", r"data_batch_3.bin .*label 10")
    batch.unlink()
    refuse("cifar10", cifar10_copy, tmp_path / "data", r"lacks .* data_batch_3.bin")


def test_batches_without_a_class_are_refused(cifar10_copy: Path, tmp_path: Path):
    batch = cifar10_copy / "test_batch.bin"
    records = np.frombuffer(batch.read_bytes(), np.uint8).reshape(-1, 3073)
    batch.write_bytes(records[records[:, 0] != 3].tobytes())
    refuse("cifar10", cifar10_copy, tmp_path / "data", "test split .* no images of cat")


def test_a_truncated_archive_is_refused(cifar10: Path, tmp_path: Path):
    source = tarred(cifar10, tmp_path / "cifar.tar.gz")
    source.write_bytes(source.read_bytes()[:-2000])
    refuse("cifar10", source, tmp_path / "data", "damaged archive|cannot be read")


class Exploit:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_malicious_python_batch_runs_nothing(cifar10_python: Path, tmp_path: Path):
    source = shutil.copytree(cifar10_python, tmp_path / "evil")
    marker = tmp_path / "executed"
    evil = pickle.dumps({b"data": Exploit(marker), b"labels": []}, protocol=2)
    (source / "data_batch_2").write_bytes(evil)
    refuse("cifar10", source, tmp_path / "data", "data_batch_2 .*mkdir")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), object), b"labels": [1, 2]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2),
    ],
)
def test_what_is_no_python_batch_is_refused(content: bytes):
    with pytest.raises(InputError, match=r"^some_batch "):
        safe_pickle.read_batch(content, name="some_batch")


# CIFAR-10 as images by class


@pytest.mark.parametrize("packed", [False, True])
def test_images_by_class_are_taken_in_turn(png_images: Path, tmp_path: Path, packed: bool):
    source = zipped(png_images, tmp_path / "images.zip") if packed else png_images
    record = prepared("cifar10", source, tmp_path / "data")
    assert record.source == f"PNG images by class, not verified, {'zip' if packed else 'folder'}"
    expected_images, expected_labels = data_factory.class_images(10, 3, size=32, seed=1)
    train = load.load_split("cifar10", "train", data_dir=tmp_path / "data")
    np.testing.assert_array_equal(train.images, expected_images)
    np.testing.assert_array_equal(train.labels, expected_labels)


def test_images_whose_names_number_them_are_taken_in_that_order(tmp_path: Path):
    """As copies of CIFAR-10 do that name an image by its place in the published file."""
    source = data_factory.make_cifar10_images(tmp_path / "images", per_class=2, suffix=".png")
    expected = {}
    for split in ("train", "test"):
        folders = sorted((source / split).iterdir())
        files = [file for folder in folders for file in sorted(folder.iterdir())]
        order = np.random.default_rng(len(split)).permutation(len(files))
        for place, file in zip(order, files, strict=True):
            file.rename(file.with_name(f"{place}_{file.parent.name}.png"))
        classes = [file.parent.name for file in files]
        expected[split] = [CLASSES.index(classes[i]) for i in np.argsort(order)]
    record = prepared("cifar10", source, tmp_path / "data")
    assert "in the order of their numbers" in record.source
    for split, labels in expected.items():
        found = load.load_split("cifar10", split, data_dir=tmp_path / "data")
        np.testing.assert_array_equal(found.labels, labels)


@pytest.mark.parametrize(
    "name",
    [
        lambda i, c: f"{i:04d}.png",  # each class for itself
        lambda i, c: f"{2 * c + i}.png",  # through all, but class by class
        lambda i, c: f"{10 * i + c + (i > 0)}.png",  # with a gap
        lambda i, c: f"image{i}.png",
    ],
)
def test_numbers_that_are_no_places_order_nothing(name: Callable[[int, int], str]):
    by_class = {key: [f"test/{key}/{name(i, c)}" for i in (0, 1)] for c, key in enumerate(CLASSES)}
    assert numbered(by_class) is None


def test_jpeg_images_are_said_to_be_re_encoded(tmp_path: Path):
    source = data_factory.make_cifar10_images(tmp_path / "images", per_class=1, suffix=".jpg")
    assert unverified_source("cifar10", data_dir=tmp_path / "data") == ""  # nothing there yet
    prepared("cifar10", source, tmp_path / "data")
    said = "re-encoded JPEG images by class, folder"
    assert load.load_split("cifar10", "test", data_dir=tmp_path / "data").source == said
    assert unverified_source("cifar10", data_dir=tmp_path / "data") == said


def test_corrupt_images_are_named_and_counted_or_skipped(png_images: Path, tmp_path: Path):
    (png_images / "train" / "cat" / "0001.png").write_bytes(b"no image")
    truncated = png_images / "test" / "ship" / "0000.png"
    truncated.write_bytes(truncated.read_bytes()[:200])
    large = tf.io.encode_png(np.zeros((33, 32, 3), np.uint8)).numpy()
    (png_images / "train" / "dog" / "0002.png").write_bytes(large)
    refuse(
        "cifar10",
        png_images,
        tmp_path / "data",
        r"3 of 60 images .*cat/0001.png \(not a readable.*dog/0002.png \(33×32 pixels, not 32×32\)"
        r".*ship/0000.png.*skip_corrupt",
    )
    record = prepared("cifar10", png_images, tmp_path / "data", skip_corrupt=True)
    assert len(record.skipped) == 3
    train = load.load_split("cifar10", "train", data_dir=tmp_path / "data")
    assert len(train.labels) == 28
    assert np.bincount(train.labels).tolist() == [3, 3, 3, 2, 3, 2, 3, 3, 3, 3]
    assert "3 corrupt images left out" in train.source


def test_a_class_that_is_corrupt_as_a_whole_is_missing(png_images: Path, tmp_path: Path):
    for file in (png_images / "train" / "frog").iterdir():
        file.write_bytes(b"")
    refuse("cifar10", png_images, tmp_path / "data", "no images of frog", skip_corrupt=True)


def test_only_corrupt_images_are_refused_even_when_skipping(png_images: Path, tmp_path: Path):
    for file in (png_images / "test").rglob("*.png"):
        file.write_bytes(b"x")
    refuse("cifar10", png_images, tmp_path / "data", "30 of 60 images", skip_corrupt=True)


def test_missing_and_foreign_class_folders_are_named(png_images: Path, tmp_path: Path):
    shutil.rmtree(png_images / "train" / "deer")
    refuse("cifar10", png_images, tmp_path / "data", "train split .* no images of deer")
    (png_images / "train" / "cat").rename(png_images / "train" / "lion")
    refuse("cifar10", png_images, tmp_path / "data", "class folders lion")


# Sources that are not what they claim


def test_sources_that_are_something_else(cifar10: Path, tiny_imagenet: Path, tmp_path: Path):
    text = tmp_path / "cifar.zip"
    text.write_text("<html>404</html>")
    data_dir = tmp_path / "data"
    for name in ("cifar10", "tiny_imagenet"):
        refuse(name, text, data_dir, "a folder, a zip or a tar archive")
        refuse(name, tmp_path / "nothing", data_dir, "does not exist")
        shutil.rmtree(data_dir)
    refuse("tiny_imagenet", cifar10, data_dir, "not Tiny ImageNet: it has no wnids.txt")
    shutil.rmtree(data_dir)
    refuse("cifar10", tiny_imagenet, data_dir, "class folders n1|no images of")
    (tmp_path / "empty").mkdir()
    refuse("cifar10", tmp_path / "empty", data_dir, "is not CIFAR-10")
    shutil.rmtree(data_dir)
    refuse("mnist", text, data_dir, "not a folder with the four MNIST IDX files")


def test_a_prepared_dataset_is_replaced_only_on_request(
    cifar10: Path, cifar10_python: Path, tmp_path: Path
):
    prepared("cifar10", cifar10, tmp_path)
    with pytest.raises(InputError, match=r"already prepared .*binary batches.*overwrite"):
        prepared("cifar10", cifar10_python, tmp_path)
    prepared("cifar10", cifar10_python, tmp_path, overwrite=True)
    assert load.load_split("cifar10", "test", data_dir=tmp_path).source.startswith("Python")


# Tiny ImageNet


@pytest.mark.parametrize("packed", [False, True])
def test_tiny_imagenet_labels_and_order(tiny_imagenet: Path, tmp_path: Path, packed: bool):
    source = zipped(tiny_imagenet, tmp_path / "tiny.zip") if packed else tiny_imagenet
    record = prepared("tiny_imagenet", source, tmp_path / "data")
    assert "subset: 400 training, 200 validation images" in record.source
    wnids = (tiny_imagenet / "wnids.txt").read_text().split()
    annotations = (tiny_imagenet / "val" / "val_annotations.txt").read_text().splitlines()
    test = load.load_split("tiny_imagenet", "test", data_dir=tmp_path / "data")
    assert [wnids[label] for label in test.labels] == [line.split("\t")[1] for line in annotations]
    for position in (0, 3, 49, 199):  # 49 is a grey JPEG
        file = tiny_imagenet / "val" / "images" / f"val_{position}.JPEG"
        expected = tf.io.decode_image(file.read_bytes(), channels=3)
        np.testing.assert_array_equal(test.images[position], expected)
    train = load.load_split("tiny_imagenet", "train", data_dir=tmp_path / "data")
    assert train.labels.tolist() == [*range(200), *range(200)]
    first = tiny_imagenet / "train" / wnids[1] / "images" / f"{wnids[1]}_0.JPEG"
    np.testing.assert_array_equal(train.images[1], tf.io.decode_image(first.read_bytes()))
    names = load.load_class_names("tiny_imagenet", data_dir=tmp_path / "data")
    assert names == tuple(f"thing {number}, it" for number in range(200))
    chosen = load.load_evaluation_set("tiny_imagenet", num_images=10, data_dir=tmp_path / "data")
    np.testing.assert_array_equal(chosen.images, test.images[:10])


def _drop_wnid(root: Path) -> None:
    wnids = (root / "wnids.txt").read_text().split()
    (root / "wnids.txt").write_text("\n".join(wnids[:-1]))


def _repeat_wnid(root: Path) -> None:
    wnids = (root / "wnids.txt").read_text().split()
    (root / "wnids.txt").write_text("\n".join([*wnids[:-1], wnids[0]]))


def _rename_wnid(root: Path) -> None:
    wnids = (root / "wnids.txt").read_text().split()
    (root / "wnids.txt").write_text("\n".join(["cat", *wnids[1:]]))


def _foreign_wnid(root: Path) -> None:
    wnids = (root / "wnids.txt").read_text().split()
    (root / "wnids.txt").write_text("\n".join([*wnids[:-1], "n99999999"]))
    words = root / "words.txt"
    words.write_text(words.read_text() + "n99999999\tforeign\n")


def _drop_class(root: Path) -> None:
    shutil.rmtree(root / "train" / (root / "wnids.txt").read_text().split()[4])


def _foreign_annotation(root: Path) -> None:
    file = root / "val" / "val_annotations.txt"
    file.write_text(file.read_text() + "val_0.JPEG\tn99999999\t0\t0\t1\t1\n")


def _drop_annotations(root: Path) -> None:
    (root / "val" / "val_annotations.txt").unlink()


def _drop_words(root: Path) -> None:
    (root / "words.txt").write_text("")


def _drop_validation_image(root: Path) -> None:
    (root / "val" / "images" / "val_7.JPEG").unlink()


def _corrupt_image(root: Path) -> None:
    file = root / "val" / "images" / "val_9.JPEG"
    file.write_bytes(file.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_drop_wnid, "wnids.txt .* got 199"),
        (_repeat_wnid, "wnids.txt .* got 199"),
        (_rename_wnid, "wnids.txt .* got 'cat'"),
        (_foreign_wnid, "not listed in wnids.txt"),
        (_drop_class, "no images of the classes n"),
        (_foreign_annotation, "line 201: 'n99999999' is not listed"),
        (_drop_annotations, "val_annotations.txt .*is missing"),
        (_drop_words, r"words.txt .* no name for .*\(200 in all\)"),
        (_drop_validation_image, r"1 of 600 images .*val_7.JPEG \(missing\).*skip_corrupt"),
        (_corrupt_image, r"1 of 600 images .*val_9.JPEG \(not a readable"),
    ],
)
def test_what_is_wrong_with_tiny_imagenet_is_named(
    tiny_copy: Path, tmp_path: Path, damage: Callable[[Path], None], match: str
):
    damage(tiny_copy)
    refuse("tiny_imagenet", tiny_copy, tmp_path / "data", match)


def test_corrupt_validation_images_can_be_skipped(tiny_copy: Path, tmp_path: Path):
    _corrupt_image(tiny_copy)
    record = prepared("tiny_imagenet", tiny_copy, tmp_path / "data", skip_corrupt=True)
    assert record.skipped == ("val/images/val_9.JPEG",)
    sizes = load.split_sizes("tiny_imagenet", data_dir=tmp_path / "data")
    assert sizes == {"train": 400, "test": 199}


# The binary


def run_binary(*flags: str) -> tuple[int, str]:
    words = ["it", "experiments.prepare_data", *flags]
    return command_runner.run_all([words], cwd=REPOSITORY)["it"]


def test_binary_says_what_it_found(cifar10: Path, tmp_path: Path):
    code, output = run_binary("--dataset=cifar10", f"--source={cifar10}", f"--data_dir={tmp_path}")
    assert code == 0, output
    assert "cifar10: 50 of 50000 training and 20 of 10000 test images, 10 classes" in output
    assert f"binary batches, not verified ({cifar10})" in output


def test_binary_ends_in_one_line_on_bad_input(tmp_path: Path):
    code, output = run_binary(
        "--dataset=tiny_imagenet", f"--source={tmp_path}/no", f"--data_dir={tmp_path}"
    )
    assert code == 2
    assert output.splitlines()[-1] == f"error: source {tmp_path}/no does not exist"
    assert "Traceback" not in output
