"""The runs folder: atomic writes, damaged files, hashes, provenance."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from alp_repro import evaluation, files, runs, shipped
from alp_repro.classifiers.load import load_function_or_model
from alp_repro.errors import InputError
from tests.small_model import IMAGE_SHAPE, small_model


def test_the_layout_of_a_run(tmp_path: Path) -> None:
    run = runs.RunDir(tmp_path / "mnist" / "clp")
    places = (run.model, run.averages, run.recipe, run.log, run.backup, run.attacks)
    assert [place.name for place in places] == [
        "model.keras",
        "averages.keras",
        "recipe.json",
        "training.csv",
        "backup",
        "attacks",
    ]
    assert all(place.parent == run.path for place in places)
    assert not run.path.exists()
    files.make_folder(run.path)
    assert list(run.path.iterdir()) == []  # no probe stays
    assert not run.finished
    run.model.touch()
    assert not run.finished
    run.recipe.touch()
    assert run.finished


# Writing


def test_a_write_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    path.parent.mkdir()
    path.write_text("before")
    seen: list[str] = []

    def write(temporary: Path) -> None:
        assert temporary.parent == path.parent
        temporary.write_text("after")
        seen.append(path.read_text())

    files.write_atomically(path, write)
    assert seen == ["before"] and path.read_text() == "after"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), MemoryError()])
def test_a_write_that_fails_changes_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        files.write_atomically(path, write)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def out_of_space(temporary: Path) -> None:
    temporary.write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(InputError, match="No space left on device") as caught:
        files.write_atomically(path, out_of_space)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_when_flushed_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    path.write_text("before")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InputError, match="No space left"):
        files.write_json(path, {"a": 1})
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_removed_hides_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_unlink = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if not path.name.endswith("file"):
            return true_unlink(path, missing_ok)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(InputError, match="No space left"):
        files.write_atomically(tmp_path / "file", out_of_space)
    (tmp_path / ".77.file").touch()
    with files.exclusive(tmp_path / "file"):
        pass


def test_arrays_are_written_where_the_clock_stands_before_1980(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip holds no such date."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    arrays = {"a": np.arange(3), "b": np.array("text"), "c": np.float64(2)}
    files.write_arrays(tmp_path / "x.npz", arrays, settings={"n": 1})
    with files.open_arrays(tmp_path / "x.npz", what="file") as found:
        assert files.read_note(found, "settings") == {"n": 1}
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value)
    with pytest.raises(InputError, match=r"m.keras.*clock"):
        runs.save_model(tmp_path / "m.keras", small_model())


@pytest.mark.parametrize(
    ("path", "words"),
    [("~nosuch/x", "no user has"), ("a\0b", "NUL"), ("x" * 5000, "5000 characters")],
)
def test_paths_that_no_file_has_are_one_line(path: str, words: str) -> None:
    for read in (files.expanded, runs.load_model, evaluation.load_record, load_function_or_model):
        with pytest.raises(InputError, match=words):
            read(path)


def test_leftovers_of_one_file_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "a[1].npz"
    keep = [path, tmp_path / "b.npz", tmp_path / ".77.b.npz", tmp_path / f".{path.name}.lock"]
    for file in (*keep, tmp_path / f".77.{path.name}", tmp_path / f".8.{path.name}"):
        file.touch()
    with files.exclusive(path):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(keep)


def test_a_folder_that_cannot_be_made_or_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file") as caught:
        files.make_folder(tmp_path / "file" / "runs")
    assert "\n" not in str(caught.value)

    def touch(path: Path, *args: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "touch", touch)  # a read-only folder; root may write to any
    with pytest.raises(InputError, match="Permission denied"):
        files.make_folder(tmp_path / "runs")


# JSON


def test_json_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    value = {"name": "λ", "drops": (80, 90), "none": None}
    files.write_json(path, value)
    assert files.read_json(path) == files.as_json_data(value) == {**value, "drops": [80, 90]}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe"])
def test_damaged_json_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"a\.json does not exist"):
        files.read_json(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is damaged") as caught:
        files.read_json(path)
    assert "\n" not in str(caught.value)


# Models


def test_a_model_comes_back(tmp_path: Path, model: keras.Model, images: np.ndarray) -> None:
    path = tmp_path / "model.keras"
    runs.save_model(path, model)
    assert list(tmp_path.iterdir()) == [path]
    found = runs.load_model(path)
    np.testing.assert_array_equal(found(images), model(images))
    assert runs.weights_hash(found) == runs.weights_hash(model)


def test_a_damaged_or_foreign_model_file_is_refused_in_one_line(
    tmp_path: Path, model: keras.Model
) -> None:
    path = tmp_path / "model.keras"
    with pytest.raises(InputError, match="does not exist: train the model first"):
        runs.load_model(path)
    runs.save_model(path, model)
    whole = path.read_bytes()

    def foreign_archive() -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hello.txt", "hello")

    def without_weights() -> None:
        with zipfile.ZipFile(path) as archive:
            kept = {n: archive.read(n) for n in archive.namelist() if not n.endswith(".h5")}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in kept.items():
                archive.writestr(name, content)

    def turned_bits() -> None:
        path.write_bytes(whole)
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("model.weights.h5").header_offset
        path.write_bytes(whole[: start + 200] + b"\xff" * 400 + whole[start + 600 :])

    damages: list[Callable[[], object]] = [
        lambda: path.write_bytes(whole[: len(whole) // 2]),
        lambda: path.write_bytes(b""),
        lambda: path.write_text("hello"),
        foreign_archive,
        lambda: path.write_bytes(whole) and without_weights(),
        turned_bits,
    ]
    for damage in damages:
        damage()
        before = path.read_bytes()
        with pytest.raises(InputError, match=r"model\.keras") as caught:
            runs.load_model(path)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before


def test_a_model_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    model = keras.Sequential(
        [keras.Input(IMAGE_SHAPE), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()]
    )
    runs.save_model(path, model)
    with pytest.raises(
        InputError, match=r"no Keras model could be loaded from .*model\.keras"
    ) as caught:
        runs.load_model(path)
    assert "\n" not in str(caught.value)


def test_the_hash_changes_with_every_weight_its_shape_and_its_place() -> None:
    def dense(*shapes: tuple[int, int]) -> keras.Model:
        layers = [keras.layers.Dense(out, use_bias=False) for _, out in shapes]
        model = keras.Sequential([keras.Input([shapes[0][0]]), *layers])
        model.set_weights([np.zeros(shape) for shape in shapes])
        return model

    model = small_model()
    found = {runs.weights_hash(model)}
    for index, weight in enumerate(model.weights):
        value = weight.numpy()
        value.flat[-1] = np.nextafter(value.flat[-1], np.float32(9))
        weight.assign(value)
        found.add(runs.weights_hash(model))
        assert len(found) == index + 2
    assert runs.weights_hash(small_model()) in found
    assert len({runs.weights_hash(m) for m in (dense((2, 6)), dense((3, 4)), dense((4, 3)))}) == 3
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in found)


# Provenance


def test_provenance_is_plain_data(tmp_path: Path) -> None:
    found = runs.provenance()
    assert json.loads(json.dumps(found)) == found
    assert {"date", "command", "revision", "python", "versions", "machine"} <= set(found)
    assert found["versions"]["keras"] == keras.__version__


def test_the_command_names_files_of_the_checkout_by_relative_paths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = shipped.checkout()
    assert root is not None
    given = [f"{root}/experiments/table.py", f"--runs_dir={root}/results", "--data_dir=/data", "x"]
    monkeypatch.setattr("sys.argv", given)
    found = ["experiments/table.py", "--runs_dir=results", "--data_dir=/data", "x"]
    assert runs.provenance()["command"] == found


def test_a_package_in_another_projects_checkout_has_no_revision_of_its(tmp_path: Path) -> None:
    """Installed into a virtual environment inside a repository that is not ours."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True
        )

    package = tmp_path / "site-packages" / "alp_repro"
    package.mkdir(parents=True)
    library = Path(runs.__file__).parent
    for module in library.rglob("*.py"):
        source = module.read_text(encoding="utf-8")
        copy = package / module.relative_to(library)
        copy.parent.mkdir(exist_ok=True)
        is_front_door = copy == package / "__init__.py"  # which imports Keras
        copy.write_text("" if is_front_door else source, encoding="utf-8")
    git("init")
    (tmp_path / "theirs.txt").write_text("theirs")
    git("add", "theirs.txt")
    git("commit", "-m", "theirs")

    def revision() -> str:
        # Keras is not needed for this, and takes seconds to import.
        code = (
            "import sys; sys.modules['keras'] = sys; import alp_repro.runs as r;"
            "print(r.code_revision())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=package.parent,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(package.parent)},
        )
        return done.stdout.strip()

    assert revision().startswith("alp_repro ")
    git("add", "-A")
    git("commit", "-m", "ours")
    own = revision()
    assert len(own) == 12 and int(own, 16) >= 0
    with (package / "errors.py").open("a") as file:
        file.write("# changed\n")
    assert revision() == f"{own}+changes"


def test_a_model_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"could not be read \(Is a directory\)"):
        runs.load_model(tmp_path)

    def forbidden(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", forbidden)  # root may read everything
    with pytest.raises(InputError, match=r"model.keras could not be read \(Permission denied\)"):
        runs.load_model(tmp_path / "model.keras")
