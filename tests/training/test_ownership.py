"""Run folders: one process at a time, whose they are, and what an unfinished training left."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alp_repro import files, runs
from alp_repro.data import Images
from alp_repro.data.sources import mnist
from alp_repro.errors import InputError
from alp_repro.training import Recipe, compiled_model, train
from alp_repro.training.backup import Backup
from alp_repro.training.ownership import Owner

STORED = Path(__file__).parents[1] / "stored" / "runs" / "mnist"
RECIPE = Recipe(dataset="mnist", model="lenet", model_width=1, epochs=2, batch_size=8)
OTHER_SEED = Recipe(dataset="mnist", model="lenet", model_width=1, epochs=2, batch_size=8, seed=1)


def some_images(count: int = 16) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    return Images(pixels, np.arange(count, dtype=np.int32) % 10, np.arange(count), "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, runs.RunDir]:
    """One training that is finished and one that was stopped after its first epoch."""
    folder = tmp_path_factory.mktemp("made")
    finished, stopped = runs.RunDir(folder / "finished"), runs.RunDir(folder / "stopped")
    train(RECIPE, finished, some_images(), verbose=0)
    save = Backup.on_epoch_end

    def save_and_stop(self: Backup, epoch: int, logs: Any = None) -> None:
        save(self, epoch, logs)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backup, "on_epoch_end", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(RECIPE, stopped, some_images(), verbose=0)
    return {"finished": finished, "stopped": stopped}


@pytest.fixture
def finished(made: dict[str, runs.RunDir], tmp_path: Path) -> runs.RunDir:
    return runs.RunDir(shutil.copytree(made["finished"].path, tmp_path / "run"))


@pytest.fixture
def stopped(made: dict[str, runs.RunDir], tmp_path: Path) -> runs.RunDir:
    return runs.RunDir(shutil.copytree(made["stopped"].path, tmp_path / "run"))


def contents(run: runs.RunDir) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("[!.]*") if path.is_file()}


def refused(recipe: Recipe, run: runs.RunDir) -> str:
    """The line of a training that is refused; nothing in the folder has changed."""
    before = contents(run)
    with pytest.raises(InputError) as caught:
        train(recipe, run, some_images(), verbose=0)
    assert contents(run) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# One process at a time


def test_a_run_that_another_process_trains_is_refused(stopped: runs.RunDir) -> None:
    with stopped.exclusive():
        assert "another process is working on" in refused(RECIPE, stopped)
    train(RECIPE, stopped, some_images(), verbose=0)


def test_the_other_workers_of_a_training_need_no_lock(
    stopped: runs.RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        importlib.import_module("alp_repro.training.train"), "is_chief", lambda strategy: False
    )
    before = contents(stopped)
    with stopped.exclusive():  # the chief's
        train(RECIPE, stopped, some_images(), verbose=0)
    assert contents(stopped) == before


def test_what_a_killed_training_left_half_written_is_removed(stopped: runs.RunDir) -> None:
    half = [stopped.path / ".123.model.keras", stopped.backup / ".123.latest.npz"]
    for path in half:
        path.touch()
    train(RECIPE, stopped, some_images(), verbose=0)
    assert not any(path.exists() for path in half)


# Whose it is


def test_a_model_that_nothing_describes_is_never_replaced(tmp_path: Path) -> None:
    run = runs.RunDir(tmp_path)
    run.model.write_bytes(b"years of work")
    assert "without settings.json and recipe.json" in refused(RECIPE, run)


def test_a_run_without_settings_is_still_its_recipes(finished: runs.RunDir) -> None:
    finished.settings.unlink()
    assert "seed: 0 in the folder, 1 requested" in refused(OTHER_SEED, finished)
    train(RECIPE, finished, some_images(), verbose=0)


def test_settings_of_another_recipe_do_not_make_a_run_its(finished: runs.RunDir) -> None:
    files.write_json(finished.settings, OTHER_SEED.to_json())
    assert "seed: 0 in the folder, 1 requested" in refused(OTHER_SEED, finished)


def test_a_state_without_settings_is_still_its_recipes(stopped: runs.RunDir) -> None:
    stopped.settings.unlink()
    assert "seed: 0 in the folder, 1 requested" in refused(OTHER_SEED, stopped)


def with_epochs(epochs: int) -> Recipe:
    return dataclasses.replace(RECIPE, epochs=epochs)


@pytest.mark.slow
def test_more_epochs_for_what_is_not_finished_end_as_if_asked_for_at_once(
    stopped: runs.RunDir, tmp_path: Path
) -> None:
    longer, at_once = with_epochs(4), runs.RunDir(tmp_path / "at_once")
    train(longer, stopped, some_images(), verbose=0)
    train(longer, at_once, some_images(), verbose=0)
    assert runs.describe(stopped).weights == runs.describe(at_once).weights
    assert stopped.log.read_text() == at_once.log.read_text()
    assert files.read_json(stopped.settings) == files.read_json(at_once.settings)


def test_what_was_given_more_epochs_keeps_them(stopped: runs.RunDir) -> None:
    files.write_json(stopped.settings, with_epochs(4).to_json())  # and was stopped then
    assert "epochs: 4 in the folder, 2 requested" in refused(RECIPE, stopped)
    train(with_epochs(4), stopped, some_images(), verbose=0)


def test_a_finished_training_is_given_no_more_epochs(finished: runs.RunDir) -> None:
    assert "epochs: 2 in the folder, 3 requested" in refused(with_epochs(3), finished)


def test_a_model_that_was_replaced_is_told(finished: runs.RunDir) -> None:
    other = compiled_model(OTHER_SEED).classifier
    runs.save_model(finished.model, other)
    assert "does not have the weights" in refused(RECIPE, finished)


def test_an_imported_run_is_no_trainings(finished: runs.RunDir) -> None:
    files.write_json(finished.settings, {"imported": {}, "weights": "0" * 16})
    assert "imported model" in refused(RECIPE, finished)


@pytest.mark.parametrize("name", ["settings", "recipe"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "3",
        "{}",
        '{"recipe": [], "weights": 3}',
        '{"recipe": {}, "weights": "0"}',
        "[" * 100_000,
        '{"a": ' * 3000 + "1" + "}" * 3000,
        "\xff",
        '{"epochs": NaN}',
    ],
)
def test_damaged_descriptions_are_one_line(name: str, text: str, finished: runs.RunDir) -> None:
    path = getattr(finished, name)
    path.write_bytes(text.encode("latin-1"))
    assert str(path) in refused(RECIPE, finished)


# The state of an unfinished training


def restored(run: runs.RunDir) -> list[np.ndarray]:
    model = compiled_model(RECIPE)
    assert Backup(run, Owner(RECIPE)).restore(model, steps_per_epoch=2) == 1
    return [np.asarray(v) for v in (*model.classifier.variables, *model.optimizer.variables)]


@pytest.mark.slow
def test_no_flipped_bit_of_a_state_becomes_another_model(stopped: runs.RunDir) -> None:
    path = stopped.backup / "latest.npz"
    good, expected = path.read_bytes(), restored(stopped)
    generator = np.random.default_rng(0)
    told = 0
    for place in generator.integers(0, len(good), 40):
        bad = bytearray(good)
        bad[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(bad)
        try:
            found = restored(stopped)
        except InputError as error:
            assert "latest.npz" in str(error) and "\n" not in str(error)
            told += 1
        else:  # a date in the archive, for example
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
    assert told > 30


def test_a_state_of_another_recipe_is_refused(stopped: runs.RunDir) -> None:
    files.write_json(stopped.settings, OTHER_SEED.to_json())
    assert "seed: 0 in the folder, 1 requested" in refused(OTHER_SEED, stopped)


def first_of_mnist(count: int) -> Images:
    images, labels = mnist.read_split(mnist.embedded_folder(), "train")
    images = images.reshape(-1, 28, 28, 1)[:count]
    return Images(images, labels[:count].astype(np.int32), np.arange(count), "embedded IDX files")


def test_a_training_that_revision_c001d3a_began_is_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.RunDir(shutil.copytree(STORED / "stopped", tmp_path / "run"))
    recipe = Recipe.from_json(files.read_json(run.settings), source="stored")
    train(recipe, run, first_of_mnist(200), verbose=0)
    assert "latest.weights.h5 was written by a version without checksums" in capsys.readouterr().out
    expected = runs.load_model(STORED / "clp" / "model.keras").get_weights()
    for a, b in zip(runs.load_model(run.model).get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    ours, theirs = (
        (folder / "training.csv").read_text().splitlines() for folder in (run.path, STORED / "clp")
    )
    assert len(ours) == len(theirs) == 3
    assert ours[0] == "epoch,accuracy,clean_ce,clp,learning_rate,loss"  # no column of validation
    assert theirs[1].startswith(ours[1])
    assert not run.backup.exists()


def test_a_run_that_revision_c001d3a_trained_is_returned(tmp_path: Path) -> None:
    run = runs.RunDir(shutil.copytree(STORED / "clp", tmp_path / "run"))
    recipe = Recipe.from_json(runs.describe(run).recipe, source="stored")
    found = train(recipe, run, some_images(), verbose=0)
    assert runs.weights_hash(found) == runs.describe(run).weights


def test_a_state_without_a_checksum_or_settings_is_refused(tmp_path: Path) -> None:
    run = runs.RunDir(shutil.copytree(STORED / "stopped", tmp_path / "run"))
    run.settings.unlink()
    assert "unknown training, since the run has no settings.json" in refused(RECIPE, run)


def test_a_state_of_another_seed_without_a_checksum_is_refused(tmp_path: Path) -> None:
    run = runs.RunDir(shutil.copytree(STORED / "stopped", tmp_path / "run"))
    recipe = Recipe.from_json(files.read_json(run.settings), source="stored")
    other = dataclasses.replace(recipe, seed=recipe.seed + 1)
    files.write_json(run.settings, Owner(other).to_json())  # the run of another seed
    before = contents(run)
    with pytest.raises(InputError, match=r"state of another training.*\(seed 1\)"):
        train(other, run, first_of_mnist(200), verbose=0)
    assert contents(run) == before


# Chance


def test_a_training_that_ends_at_chance_is_marked(
    finished: runs.RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs.describe(finished).at_chance == (last_accuracy(finished) < 0.15)
    data = some_images()
    same = Images(data.images, np.zeros_like(data.labels), data.indices, data.source)
    recipe = Recipe(
        dataset="mnist", model="lenet", model_width=1, epochs=3, batch_size=8, learning_rate=0.05
    )
    run = runs.RunDir(tmp_path / "learned")
    train(recipe, run, same, verbose=0)  # one label is soon learned
    assert last_accuracy(run) > 0.15 and not runs.describe(run).at_chance
    stuck = Recipe(
        dataset="mnist", model="lenet", model_width=1, epochs=1, batch_size=8, learning_rate=1e-12
    )
    never = runs.RunDir(tmp_path / "never")
    worst = int(np.argmin(np.bincount(predictions(stuck, data), minlength=10)))
    shuffled = Images(data.images, np.full_like(data.labels, worst), data.indices, data.source)
    train(stuck, never, shuffled, verbose=0)
    assert "chance level" in capsys.readouterr().out
    assert runs.describe(never).at_chance


def last_accuracy(run: runs.RunDir) -> float:
    header, *_, last = run.log.read_text().splitlines()
    return float(dict(zip(header.split(","), last.split(","), strict=True))["accuracy"])


def predictions(recipe: Recipe, data: Images) -> np.ndarray:
    logits = compiled_model(recipe).classifier(data.images.astype(np.float32) / 255)
    return np.argmax(logits, axis=1)
