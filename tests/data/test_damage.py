"""Damage to archives and to prepared datasets: found, told in one line, never read as data."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import resource
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from alp_repro.data import (
    Images,
    dataset_spec,
    load_class_names,
    load_split,
    prepare,
    split_sizes,
    store,
)
from alp_repro.data.sources import cifar10 as cifar10_source
from alp_repro.data.sources import file_trees
from alp_repro.data.sources import tiny_imagenet as tiny_imagenet_source
from alp_repro.data.sources.file_trees import DamagedFile, open_tree
from alp_repro.errors import InputError
from tests import data_factory

CIFAR10 = dataset_spec("cifar10")


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_factory.make_cifar10(
        tmp_path_factory.mktemp("batches"), train_per_class=5, test_per_class=1
    )


@pytest.fixture(scope="module")
def whole(batches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("whole")
    prepare.prepare_from_source(CIFAR10, batches, data_dir=data_dir)
    return data_dir


@pytest.fixture
def data_dir(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "data")


def folder_of(data_dir: Path) -> Path:
    return prepare.prepared_folder(CIFAR10, data_dir)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 16
    path.write_bytes(bytes(content))


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# Archives


def compressed(batches: Path, archive: Path) -> bytes:
    """A tar of the batches whose pixels gzip stores as they are, so that a flip reaches them."""
    plain = archive.with_suffix(".tar")
    with tarfile.open(plain, "w") as output:
        output.add(batches, batches.name)
    packed = gzip.compress(plain.read_bytes(), compresslevel=0)
    archive.write_bytes(packed)
    return packed


def test_a_flipped_pixel_in_a_tar_gz_is_noticed(batches: Path, tmp_path: Path):
    archive = tmp_path / "cifar.tar.gz"
    packed = compressed(batches, archive)
    pixels = (batches / "test_batch.bin").read_bytes()[:1000]
    flip(archive, packed.index(pixels) + 500)
    with pytest.raises(InputError, match="damaged archive: CRC") as error:
        prepare.prepare_from_source(CIFAR10, archive, data_dir=tmp_path / "data")
    assert str(archive) in one_line(error)


@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
def test_a_member_that_no_data_set_has_is_not_read(kind: str, tmp_path: Path, monkeypatch):
    """6 GB of zeros take 6 MB of a zip."""
    monkeypatch.setattr(file_trees, "LARGEST_FILE", 1000)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/large").write_bytes(bytes(1001))
    (tmp_path / "d/small").write_bytes(bytes(1000))
    source = tmp_path / "d"
    if kind == "zip":
        source = tmp_path / "a.zip"
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as output:
            for name in ("large", "small"):
                output.write(tmp_path / "d" / name, name)
    elif kind == "tar":
        source = tmp_path / "a.tar.gz"
        with tarfile.open(source, "w:gz") as output:
            for name in ("large", "small"):
                output.add(tmp_path / "d" / name, name)
    with file_trees.open_tree(source) as tree:
        assert len(tree.read("small")) == 1000
        with pytest.raises(file_trees.DamagedFile, match=r"1,001 bytes"):
            tree.read("large")
        file_trees.verify_unread_files(tree)


def test_whatever_byte_of_an_archive_is_flipped_no_pixel_changes(batches: Path, tmp_path: Path):
    with open_tree(batches) as tree:
        whole = {name: tree.read(name) for name in tree.names}
    archives = {"tar.gz": tmp_path / "x.tar.gz", "zip": tmp_path / "x.zip"}
    with tarfile.open(archives["tar.gz"], "w:gz") as output:
        output.add(batches, "x")
    with zipfile.ZipFile(archives["zip"], "w", zipfile.ZIP_DEFLATED) as output:
        for file in batches.iterdir():
            output.write(file, f"x/{file.name}")
    for archive in archives.values():
        content = archive.read_bytes()
        ends = [*range(20), *range(len(content) - 20, len(content))]
        for position in [*ends, *np.random.default_rng(0).integers(0, len(content), 40)]:
            flip(archive, position)
            with (
                contextlib.suppress(InputError, DamagedFile),
                open_tree(archive) as tree,
            ):
                for name in set(tree.names) & {f"x/{known}" for known in whole}:
                    assert tree.read(name) == whole[name.removeprefix("x/")]
            archive.write_bytes(content)


def zipped(root: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as output:
        for file in sorted(root.rglob("*")):
            output.write(file, file.relative_to(root.parent))
    return archive


def test_a_flipped_bit_in_a_zip_is_noticed(tmp_path: Path):
    images = data_factory.make_cifar10_images(tmp_path / "images", per_class=1)
    archive = zipped(images, tmp_path / "images.zip")
    image = (images / "test" / "cat" / "0000.png").read_bytes()
    flip(archive, archive.read_bytes().index(image) + len(image) // 2)
    with pytest.raises(InputError, match=r"test/cat/0000.png \(Bad CRC") as error:
        prepare.prepare_from_source(CIFAR10, archive, data_dir=tmp_path / "data")
    one_line(error)


def test_an_image_that_a_flipped_name_hides_is_noticed(tmp_path: Path):
    images = data_factory.make_cifar10_images(tmp_path / "images", per_class=2)
    archive = zipped(images, tmp_path / "images.zip")
    # The last place that names a file is the directory at the end of the zip.
    flip(archive, archive.read_bytes().rindex(b"train/cat/0001.png") + len("train/cat/0001.p"))
    with pytest.raises(InputError, match=r"train/cat/0001.p.g .* is damaged") as error:
        prepare.prepare_from_source(CIFAR10, archive, data_dir=tmp_path / "data")
    one_line(error)


def test_an_archive_of_the_published_size_must_have_the_published_checksum(
    batches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = tmp_path / "cifar.tar.gz"
    size = len(compressed(batches, archive))
    monkeypatch.setattr(cifar10_source, "BINARY_ARCHIVE", (size, "0" * 32))
    with pytest.raises(InputError, match=r"size of the official CIFAR-10 binary archive.*damaged"):
        prepare.prepare_from_source(CIFAR10, archive, data_dir=tmp_path / "data")

    tiny = zipped(
        data_factory.make_tiny_imagenet(tmp_path, train_per_class=1, val_per_class=1),
        tmp_path / "tiny.zip",
    )
    monkeypatch.setattr(tiny_imagenet_source, "ZIP_BYTES", tiny.stat().st_size)
    with pytest.raises(InputError, match=r"size of the official Tiny ImageNet zip.*damaged"):
        prepare.prepare_from_source(dataset_spec("tiny_imagenet"), tiny, data_dir=tmp_path / "data")


def test_official_python_batches_are_told_by_their_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    batches = data_factory.make_cifar10(tmp_path, train_per_class=5, test_per_class=1, python=True)
    published = {f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in batches.iterdir()}
    monkeypatch.setattr(cifar10_source, "PYTHON_BATCHES", published)
    record = prepare.prepare_from_source(CIFAR10, batches, data_dir=tmp_path / "a")
    assert record.source == "official Python batches"
    content = (batches / "data_batch_4").read_bytes()
    flip(batches / "data_batch_4", len(content) // 2)
    with pytest.raises(InputError, match=r"data_batch_4 .* is damaged"):
        prepare.prepare_from_source(CIFAR10, batches, data_dir=tmp_path / "b")


# Prepared datasets


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _cut_after_an_example(path: Path) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little") + 16  # of a record, with its checksums
    path.write_bytes(content[:length])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip_data(path: Path) -> None:
    flip(path, path.stat().st_size // 2)


def _flip_checksum(path: Path) -> None:
    flip(path, 9)


def _garble(path: Path) -> None:
    path.write_text("{")


SHARD = "cifar10-test.tfrecord-00000-of-00001"
DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    *((SHARD, damage) for damage in (_cut, _cut_after_an_example, _empty, Path.unlink)),
    *((SHARD, damage) for damage in (_flip_data, _flip_checksum)),
    *(
        (name, damage)
        for name in ("dataset_info.json", "features.json")
        for damage in (Path.unlink, _empty, _garble, _flip_data)
    ),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_damage_to_a_prepared_dataset_is_told_with_its_cure(
    data_dir: Path, batches: Path, name: str, damage: Callable[[Path], None]
):
    damage(folder_of(data_dir) / name)
    with pytest.raises(InputError) as error:
        load_split("cifar10", "test", data_dir=data_dir)
    told = one_line(error)
    assert str(folder_of(data_dir) / name) in told
    assert f"remove the folder {folder_of(data_dir)}" in told
    assert str(batches) in told
    if name == SHARD:
        assert len(load_split("cifar10", "train", data_dir=data_dir).labels) == 50
    else:
        for reads in (split_sizes, load_class_names):
            with pytest.raises(InputError, match=re.escape(name)):
                reads("cifar10", data_dir=data_dir)
    if damage is not _empty:
        return
    # The cure is the right one.
    shutil.rmtree(folder_of(data_dir))
    prepare.prepare_from_source(CIFAR10, batches, data_dir=data_dir)
    assert len(load_split("cifar10", "test", data_dir=data_dir).labels) == 10


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_damage_to_a_dataset_without_checksums_is_one_line_too(
    data_dir: Path, name: str, damage: Callable[[Path], None]
):
    record = folder_of(data_dir) / "alp_repro_source.json"
    stored = json.loads(record.read_text())
    del stored["files"]  # as versions before the checksums wrote it
    record.write_text(json.dumps(stored))
    before = load_split("cifar10", "test", data_dir=data_dir)
    damage(folder_of(data_dir) / name)
    try:
        after = load_split("cifar10", "test", data_dir=data_dir)
    except InputError as error:
        assert "\n" not in str(error)
        assert str(folder_of(data_dir)) in str(error)
    else:  # facts that the images do not depend on
        assert name != SHARD
        assert after.digest == before.digest


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"source": 1, "origin": "x", "skipped": []}'],
)
def test_a_damaged_source_record_is_one_line(data_dir: Path, content: bytes):
    (folder_of(data_dir) / "alp_repro_source.json").write_bytes(content)
    with pytest.raises(InputError, match=r"alp_repro_source.json is damaged .*: remove") as error:
        load_split("cifar10", "test", data_dir=data_dir)
    one_line(error)


def test_labels_that_the_data_set_does_not_have_are_refused(tmp_path: Path):
    examples = [(0, {"id": "test_00000", "image": np.zeros((32, 32, 3), np.uint8), "label": 12})]
    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(num_classes=20),
    }
    store.store_examples(
        tmp_path,
        "cifar10",
        CIFAR10.version,
        features=tfds.features.FeaturesDict(features),
        splits={"train": examples, "test": examples},
        description="",
    )
    with pytest.raises(InputError, match="labels from 12 to 12"):
        load_split("cifar10", "test", data_dir=tmp_path)


def test_other_data_under_the_same_name_have_another_digest(data_dir: Path, tmp_path: Path):
    before = load_split("cifar10", "test", data_dir=data_dir)
    assert before.digest == load_split("cifar10", "test", data_dir=data_dir).digest
    other = data_factory.make_cifar10_images(tmp_path / "images", per_class=1, suffix=".jpg")
    prepare.prepare_from_source(CIFAR10, other, data_dir=data_dir, overwrite=True)
    after = load_split("cifar10", "test", data_dir=data_dir)
    assert after.images.shape == before.images.shape
    relabelled = Images(before.images, before.labels[::-1], before.indices, before.source)
    assert len({before.digest, after.digest, relabelled.digest}) == 3


# The machine's own troubles


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow further, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def left_in(data_dir: Path) -> list[str]:
    return sorted(path.name for path in data_dir.iterdir())


@pytest.mark.parametrize("size", [100, 1500, 20_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(batches: Path, tmp_path: Path, size: int):
    with largest_file(size), pytest.raises(InputError, match="cannot be prepared in") as error:
        prepare.prepare_from_source(CIFAR10, batches, data_dir=tmp_path)
    assert "partial files were removed" in one_line(error)
    assert left_in(tmp_path) == [".cifar10.lock"]


def test_an_interrupted_preparation_leaves_nothing_or_what_was_there(
    batches: Path, data_dir: Path, tmp_path: Path
):
    def interrupt(folder: Path) -> store.SourceRecord:
        CIFAR10.write(folder, batches)
        raise KeyboardInterrupt

    before = load_split("cifar10", "test", data_dir=data_dir)
    for place in (tmp_path / "new", data_dir):
        with pytest.raises(KeyboardInterrupt):
            store.prepare(place, "cifar10", CIFAR10.version, write=interrupt, overwrite=True)
    assert left_in(tmp_path / "new") == [".cifar10.lock"]
    assert left_in(data_dir) == [".cifar10.lock", "cifar10"]
    assert load_split("cifar10", "test", data_dir=data_dir).digest == before.digest


@contextlib.contextmanager
def without_permission(path: Path, mode: int) -> Iterator[None]:
    """Takes permissions away, from root too."""
    before = {place: place.stat().st_mode for place in (path, *path.parents[:-2])}
    root = os.geteuid() == 0
    try:
        for parent in path.parents[:-2]:
            parent.chmod(before[parent] | 0o755)
        path.chmod(mode)
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        for place, its_mode in before.items():
            place.chmod(its_mode)


def test_what_may_not_be_read_or_locked_is_one_line(data_dir: Path):
    with without_permission(data_dir / "cifar10", 0), pytest.raises(InputError) as error:
        load_split("cifar10", "test", data_dir=data_dir)
    assert "cannot be read (Permission denied)" in one_line(error)
    shutil.rmtree(data_dir / "cifar10")
    data_dir.chmod(0o777)
    lock = data_dir / ".cifar10.lock"
    lock.touch()
    with without_permission(lock, 0), pytest.raises(InputError) as error:
        load_split("cifar10", "test", data_dir=data_dir)
    assert ".cifar10.lock cannot be locked (Permission denied)" in one_line(error)


def test_a_home_that_nobody_has_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(InputError, match=r"^~nobody_of_this_name/data"):
        load_split("mnist", "test", data_dir="~nobody_of_this_name/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.resolve_data_dir("~/data") == tmp_path / "data"
    monkeypatch.setenv("ALP_REPRO_DATA_DIR", "~/other")
    assert store.resolve_data_dir(None) == tmp_path / "other"
