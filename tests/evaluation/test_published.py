"""Published models and results are checked against each other, and attacked again."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from alp_repro import runs
from alp_repro.attacks import PGD, strong_attack
from alp_repro.data import Images
from alp_repro.errors import InputError
from alp_repro.evaluation import evaluate
from alp_repro.evaluation.published import (
    load_published,
    published_run,
    records_of,
    rerun_attack,
)

STORED = Path(__file__).resolve().parents[1] / "stored" / "runs" / "mnist" / "clp"
WEAK = PGD(eps=0.05, eps_iter=0.02, nb_iter=3, restarts=4)


def some_images() -> Images:
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (30, 28, 28, 1), dtype=np.uint8)
    return Images(images, generator.integers(0, 10, 30).astype(np.int32), np.arange(30), "made up")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A folder of results with one run: a small LeNet and two attacks on 20 images; the model."""
    folder = tmp_path_factory.mktemp("results")
    run = runs.RunDir(folder / "published" / "mnist" / "clp")
    shutil.copytree(STORED, run.path, ignore=shutil.ignore_patterns("attacks", "surfaces"))
    model, test = runs.load_model(run.model), some_images()
    indices = np.array([*range(5, 20), 3, 3, 28, 29, 0])
    for attack in (WEAK, strong_attack(0.01)):
        evaluate(
            model,
            test.unit_scale[indices],
            predicted(model, test)[indices],
            attack=attack,
            folder=run.attacks,
            indices=indices,
            batch_size=10,
        )
    return folder, model


@pytest.fixture
def results(made: tuple[Path, keras.Model], tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(made[0] / "published", tmp_path / "published")
    return tmp_path


@pytest.fixture
def model(made: tuple[Path, keras.Model]) -> keras.Model:
    """The published one, whose programs are there already."""
    return made[1]


def predicted(model: keras.Model, test: Images) -> np.ndarray:
    """Labels that the model gets right, so that there is something to break."""
    return np.argmax(model(test.unit_scale), axis=1).astype(np.int32)


def labelled(model: keras.Model) -> Images:
    test = some_images()
    return Images(test.images, predicted(model, test), test.indices, test.source)


def test_a_model_is_loaded_by_its_name_and_checked(results: Path) -> None:
    model = load_published("mnist/clp", folder=results)
    assert model.output_shape == (None, 10)
    with pytest.raises(InputError, match=r"'mnist/lsq': .*one of mnist/clp"):
        load_published("mnist/lsq", folder=results)
    with pytest.raises(InputError, match=r"no published model 'clp'"):
        load_published("clp", folder=results)
    with pytest.raises(InputError, match=r"there are none in"):
        load_published("mnist/clp", folder=results / "elsewhere")
    weights = model.get_weights()
    weights[0] = weights[0] + 1e-3
    model.set_weights(weights)
    runs.save_model(published_run("mnist/clp", folder=results).model, model)
    with pytest.raises(InputError, match=r"is not the published model: .*hash"):
        load_published("mnist/clp", folder=results)


def test_another_function_of_the_same_weights_is_not_the_published_model(results: Path) -> None:
    model = load_published("mnist/clp", folder=results)
    other = keras.models.clone_model(model, clone_function=with_gelu)
    other.set_weights(model.get_weights())
    assert runs.weights_hash(other) == runs.weights_hash(model)
    runs.save_model(published_run("mnist/clp", folder=results).model, other)
    with pytest.raises(InputError, match=r"is not the published model: it has the same weights"):
        load_published("mnist/clp", folder=results)


def with_gelu(layer: keras.Layer) -> keras.Layer:
    config = layer.get_config()
    if config.get("activation") == "relu":
        config["activation"] = "gelu"
    return type(layer).from_config(config)


@pytest.mark.slow
def test_the_attack_again_finds_what_the_record_says(results: Path, model: keras.Model) -> None:
    records = records_of(published_run("mnist/clp", folder=results))
    assert len(records) == 2
    found = [
        rerun_attack(model, labelled(model), record, restarts=restarts, num_images=count)
        for record, restarts, count in zip(records, (1, 18), (20, 12), strict=True)
    ]
    for comparison, count in zip(found, (20, 12), strict=True):
        assert comparison.stored.shape == comparison.repeated.shape == (count,)
        assert not len(comparison.differing) and "equal image by image" in str(comparison)
    assert any(comparison.stored.any() for comparison in found)


def test_a_difference_is_told_with_the_images(results: Path, model: keras.Model) -> None:
    record = records_of(published_run("mnist/clp", folder=results))[0]
    record.first_break[:2] = np.where(record.first_break[:2] == 0, -1, 0)
    found = rerun_attack(model, labelled(model), record, restarts=1, num_images=20)
    np.testing.assert_array_equal(found.differing, [0, 1])
    assert "2 differ (images 0, 1)" in str(found)


@pytest.mark.slow
def test_a_result_that_is_not_finished_is_told(results: Path, model: keras.Model) -> None:
    test = labelled(model)
    for record in records_of(published_run("mnist/clp", folder=results)):
        finished = rerun_attack(model, test, record, restarts=1, num_images=20)
        assert finished.waiting == 0 and "unfinished" not in str(finished)
        record.first_break[:2], record.next_restart[:2] = -1, (1, 4)
        found = rerun_attack(model, test, record, restarts=1, num_images=20)
        assert "unfinished: 1 images" in str(found)


def test_results_of_another_model_or_of_other_images_are_refused(
    results: Path, model: keras.Model
) -> None:
    run = published_run("mnist/clp", folder=results)
    record = records_of(run)[0]
    with pytest.raises(InputError, match=r"not those of the test split here.*made up"):
        rerun_attack(model, some_images(), record, restarts=1, num_images=20)
    description = run.recipe.read_text(encoding="utf-8")
    other = description.replace(runs.describe(run).weights, "0123456789abcdef")
    run.recipe.write_text(other, encoding="utf-8")
    with pytest.raises(InputError, match=r"result of another model"):
        records_of(run)
    shutil.rmtree(run.attacks)
    with pytest.raises(InputError, match=r"attacks has no results"):
        records_of(run)
