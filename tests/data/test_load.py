from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import mnist as tfds_mnist

from alp_repro import shipped
from alp_repro.data import load, source_record, store
from alp_repro.data.source_record import SourceRecord
from alp_repro.data.sources import mnist
from alp_repro.errors import InputError, MissingDataError
from experiments.console.commands import prepare_command

ROOT = Path(__file__).resolve().parents[2]
TRAIN, TEST = 30, 20


def small_mnist_arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    arrays = {}
    for prefix, count in (("train", TRAIN), ("t10k", TEST)):
        arrays[f"{prefix}-images-idx3-ubyte"] = generator.integers(0, 256, (count, 28, 28))
        arrays[f"{prefix}-labels-idx1-ubyte"] = generator.integers(0, 10, count)
    return {name: array.astype(np.uint8) for name, array in arrays.items()}


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four small IDX files that stands for the embedded one, checksums included."""
    folder = tmp_path / "embedded"
    folder.mkdir()
    files = {}
    for name, array in small_mnist_arrays().items():
        header = bytes([0, 0, 8, array.ndim])
        header += b"".join(size.to_bytes(4, "big") for size in array.shape)
        content = header + array.tobytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        digest = hashlib.sha256(content).hexdigest()
        files[name] = mnist.IdxFile(name, array.shape, digest)
    names = list(files)
    pairs = {
        "train": (files[names[0]], files[names[1]]),
        "test": (files[names[2]], files[names[3]]),
    }
    monkeypatch.setattr(mnist, "FILES", pairs)
    monkeypatch.setattr(mnist, "embedded_folder", lambda: folder)
    return folder


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_evaluation_indices_are_the_papers_draw(name: str):
    np.random.seed(123)
    expected = np.random.choice(10000, 1000)
    indices = load.evaluation_indices(name, available=10000)
    np.testing.assert_array_equal(indices, expected)
    assert indices.dtype == np.int64
    assert indices[:5].tolist() == [3582, 1346, 5218, 7763, 9785]
    fewer = load.evaluation_indices(name, 17, available=10000)
    np.testing.assert_array_equal(fewer, expected[:17])


def test_evaluation_indices_of_small_data_stay_inside():
    indices = load.evaluation_indices("cifar10", 50, available=20)
    assert indices.shape == (50,)
    assert indices.min() >= 0
    assert indices.max() < 20


def test_tiny_imagenet_evaluates_the_first_validation_images():
    indices = load.evaluation_indices("tiny_imagenet", 12, available=400)
    assert indices.tolist() == list(range(12))
    with pytest.raises(InputError, match=r"401 .*at most 400"):
        load.evaluation_indices("tiny_imagenet", 401, available=400)


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_evaluation_set_has_1_to_1000_images(count: int):
    with pytest.raises(InputError, match=f"^{count} evaluation images of mnist"):
        load.evaluation_indices("mnist", count, available=10000)


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path):
    with pytest.raises(InputError, match="mnist, cifar10, tiny_imagenet"):
        load.dataset_spec("imagenet")
    with pytest.raises(InputError, match="train or test"):
        load.load_split("mnist", "val", data_dir=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="limit 0 of mnist"):
        load.load_split("mnist", "train", data_dir=tmp_path, limit=0)


def test_first_use_prepares_from_the_embedded_files(
    small_mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arrays = small_mnist_arrays()
    data_dir = tmp_path / "new" / "data"
    train = load.load_split("mnist", "train", data_dir=data_dir)
    np.testing.assert_array_equal(train.images[..., 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(train.labels, arrays["train-labels-idx1-ubyte"])
    assert train.indices.tolist() == list(range(TRAIN))
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int32)
    assert train.source == "embedded IDX files"
    assert capsys.readouterr().out == ""

    # From now on the embedded files are not needed.
    for file in small_mnist.iterdir():
        file.unlink()
    limited = load.load_split("mnist", "test", data_dir=data_dir, limit=7)
    np.testing.assert_array_equal(limited.images[..., 0], arrays["t10k-images-idx3-ubyte"][:7])
    assert load.split_sizes("mnist", data_dir=data_dir) == {"train": TRAIN, "test": TEST}
    assert load.load_class_names("mnist", data_dir=data_dir)[7] == "7"
    loaded = tfds.load("mnist", split="test", data_dir=data_dir, download=False)
    assert len(loaded) == TEST


def test_evaluation_set_is_the_drawn_images_in_order(small_mnist: Path, tmp_path: Path):
    arrays = small_mnist_arrays()
    chosen = load.load_evaluation_set("mnist", num_images=25, data_dir=tmp_path / "data")
    expected = load.evaluation_indices("mnist", 25, available=TEST)
    np.testing.assert_array_equal(chosen.indices, expected)
    np.testing.assert_array_equal(chosen.images[..., 0], arrays["t10k-images-idx3-ubyte"][expected])
    np.testing.assert_array_equal(chosen.labels, arrays["t10k-labels-idx1-ubyte"][expected])


def test_the_embedded_files_are_the_canonical_mnist():
    images, labels = mnist.read_split(mnist.embedded_folder(), "test")
    assert images.shape == (10000, 28, 28, 1)
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _shorten(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def _alter(path: Path) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))


def _garble(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "is missing"),
        (_truncate, "cannot be unpacked"),
        (_garble, "cannot be unpacked"),
        (_shorten, "bytes unpacked"),
        (_alter, "wrong checksum"),
    ],
)
def test_a_damaged_embedded_file_is_named(small_mnist: Path, tmp_path: Path, damage, message: str):
    damage(small_mnist / "t10k-labels-idx1-ubyte.gz")
    data_dir = tmp_path / "data"
    with pytest.raises(InputError, match=f"t10k-labels-idx1-ubyte.*{message}"):
        load.load_split("mnist", "train", data_dir=data_dir)
    assert [path.name for path in data_dir.iterdir()] == [".mnist.lock"]


def test_unwritable_data_directory_is_one_clear_error(small_mnist: Path, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"^data directory: cannot write to .*ALP_REPRO_DATA_DIR"):
        load.load_split("mnist", "train", data_dir=tmp_path / "file" / "data")


def test_leftovers_of_a_killed_process_are_prepared_again(small_mnist: Path, tmp_path: Path):
    half = tmp_path / "data" / ".preparing-mnist-killed" / "mnist" / "3.0.1"
    half.mkdir(parents=True)
    (half / "mnist-train.tfrecord-00000-of-00001").write_bytes(b"half")
    without_info = tmp_path / "data" / "mnist" / "3.0.1"
    without_info.mkdir(parents=True)
    (without_info / "mnist-train.tfrecord-00000-of-00001").write_bytes(b"half")
    train = load.load_split("mnist", "train", data_dir=tmp_path / "data")
    assert len(train.labels) == TRAIN
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".mnist.lock", "mnist"]


def fake_writer(calls: list[str], *, text: str = "new", seconds: float = 0.0):
    def write(folder: Path) -> SourceRecord:
        calls.append(text)
        target = folder / "toy" / "1.0.0"
        target.mkdir(parents=True)
        time.sleep(seconds)
        (target / "dataset_info.json").write_text(text)
        return SourceRecord(text, "nowhere", ("a.png",))

    return write


def test_two_at_once_prepare_once(tmp_path: Path):
    calls: list[str] = []
    records: list[SourceRecord] = []

    def prepare() -> None:
        write = fake_writer(calls, seconds=0.2)
        records.append(store.prepare(tmp_path, "toy", "1.0.0", write=write))

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["new"]
    assert records == [SourceRecord("new", "nowhere", ("a.png",))] * 3
    assert records[0].summary == "new (1 corrupt images left out)"


def test_a_failed_overwrite_keeps_the_old_dataset(tmp_path: Path):
    store.prepare(tmp_path, "toy", "1.0.0", write=fake_writer([], text="old"))

    def fail(folder: Path) -> SourceRecord:
        (folder / "toy" / "1.0.0").mkdir(parents=True)
        raise InputError("no good")

    with pytest.raises(InputError, match="no good"):
        store.prepare(tmp_path, "toy", "1.0.0", write=fail, overwrite=True)
    info = tmp_path / "toy" / "1.0.0" / "dataset_info.json"
    assert info.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".toy.lock", "toy"]
    store.prepare(tmp_path, "toy", "1.0.0", write=fake_writer([]), overwrite=True)
    assert info.read_text() == "new"


def test_a_foreign_record_is_refused(tmp_path: Path):
    (tmp_path / "alp_repro_source.json").write_text(json.dumps({"source": "x"}))
    with pytest.raises(InputError, match=r"alp_repro_source\.json is damaged"):
        source_record.read(tmp_path)


def test_default_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALP_REPRO_DATA_DIR", str(tmp_path / "chosen"))
    assert store.default_data_dir() == tmp_path / "chosen"
    monkeypatch.delenv("ALP_REPRO_DATA_DIR")
    # As installed: no checkout around the module.
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "lib" / "alp_repro" / "x.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store.default_data_dir() == tmp_path / "cache" / "alp_repro" / "tfds"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "setup.py").touch()
    assert store.default_data_dir() == tmp_path / "lib" / ".tfds"
    monkeypatch.undo()
    monkeypatch.delenv("ALP_REPRO_DATA_DIR", raising=False)
    assert store.default_data_dir() == ROOT / ".tfds"


def store_shuffled(data_dir: Path, name: str, version: str, features: dict, examples: list) -> None:
    with store.quiet_tfds():
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=version,
            features=tfds.features.FeaturesDict(features),
            split_datasets={"train": examples, "test": examples},
            data_dir=data_dir,
        )


def test_order_of_a_dataset_that_tfds_shuffled(tmp_path: Path):
    images = np.random.default_rng(1).integers(0, 256, (40, 32, 32, 3), np.uint8)
    features = {
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    examples = [(i, {"image": image, "label": i % 10}) for i, image in enumerate(images)]
    with_ids = [(i, {**example, "id": f"test_{i:05d}"}) for i, example in examples]
    version = str(tfds.builder_cls("cifar10").VERSION)
    store_shuffled(tmp_path, "cifar10", version, {**features, "id": tfds.features.Text()}, with_ids)
    test = load.load_split("cifar10", "test", data_dir=tmp_path, limit=25)
    np.testing.assert_array_equal(test.images, images[:25])
    assert test.labels.tolist() == [i % 10 for i in range(25)]
    assert test.source == "prepared elsewhere by TFDS"

    # Without ids nothing tells the order.
    grey = {**features, "image": tfds.features.Image(shape=(28, 28, 1))}
    digits = [(i, {"image": np.zeros((28, 28, 1), np.uint8), "label": 0}) for i in range(5)]
    store_shuffled(tmp_path, "mnist", "3.0.1", grey, digits)
    with pytest.raises(InputError, match="shuffled order"):
        load.load_split("mnist", "test", data_dir=tmp_path)


def test_without_embedded_files_tfds_downloads_in_the_published_order(
    small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    for file in list(small_mnist.iterdir()):
        (downloaded / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    monkeypatch.setattr(tfds_mnist, "_TRAIN_EXAMPLES", TRAIN)
    monkeypatch.setattr(tfds_mnist, "_TEST_EXAMPLES", TEST)
    monkeypatch.setattr(
        tfds.download.DownloadManager,
        "download_and_extract",
        lambda _, urls: {
            key: str(downloaded / Path(url).name.removesuffix(".gz")) for key, url in urls.items()
        },
    )
    test = load.load_split("mnist", "test", data_dir=tmp_path / "data")
    expected = small_mnist_arrays()["t10k-images-idx3-ubyte"]
    np.testing.assert_array_equal(test.images[..., 0], expected)
    assert "download" in test.source


def test_a_failed_download_says_how_to_bring_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", offline)
    for name in ("cifar10", "tiny_imagenet"):
        with pytest.raises(MissingDataError, match=r"no route to host.*local files") as error:
            load.load_split(name, "train", data_dir=tmp_path)
        command = f"python -m experiments.prepare_data --dataset={name} --source=PATH"
        assert prepare_command(error.value) == f"{command} --data_dir={tmp_path}"
        assert not (tmp_path / name).exists()
    assert "only after some minutes" in caplog.text
