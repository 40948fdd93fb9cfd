"""--num_images: the first so many of the paper's images, or the whole test split."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from alp_repro import files, runs
from alp_repro.attacks import PGD
from alp_repro.data import dataset_spec, prepare
from alp_repro.errors import InputError
from alp_repro.reporting import results
from experiments.flags import settings
from experiments.running.devices import Devices
from experiments.running.evaluation_run import attack_run, image_count
from experiments.running.rows import Job, result_query
from tests import data_factory

ATTACK = PGD(eps=16 / 255, eps_iter=4 / 255, nb_iter=1)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A finished run on a data set of 20 test images, to be attacked on all of them."""
    source = data_factory.make_cifar10(tmp_path, train_per_class=5, test_per_class=2)
    prepare.prepare_from_source(dataset_spec("cifar10"), source, data_dir=tmp_path / "data")
    arguments = ["--dataset=cifar10", "--row=tiny", "--num_images=all", "--batch_size=5"]
    places = [f"--runs_dir={tmp_path / 'runs'}", f"--data_dir={tmp_path / 'data'}"]
    job = Job("tiny", "smoke", settings.parse([*arguments, *places]), [])
    keras.utils.set_random_seed(0)
    layers = [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
    model = keras.Sequential(layers)
    runs.save_model(job.run.model, model)
    recipe = settings.recipe(job.values)
    weights = {"weights": runs.weights_hash(model), "recipe": recipe.to_json()}
    files.write_json(job.run.recipe, weights)
    return job


def test_all_is_the_whole_split_and_its_results_are_found(job: Job) -> None:
    devices = Devices("here", gpu=False, strategy=None)
    model = runs.load_model(job.run.model)
    assert image_count(job.values) == 20
    record = attack_run(job.values, job.run, model, ATTACK, devices, report_status=print)
    assert record.indices.tolist() == list(range(20))
    found = results.find_result(job.run, ATTACK, result_query(job))
    assert found.record is not None and found.problem == ""
    # As many images that are drawn with replacement are others.
    job.values.num_images = 20
    again = attack_run(job.values, job.run, model, ATTACK, devices, report_status=print)
    assert again.settings["images"] != record.settings["images"]
    drawn = results.find_result(job.run, ATTACK, result_query(job))
    assert drawn.record is not None
    assert drawn.record.indices.tolist() == again.indices.tolist()


def test_without_data_the_official_split_is_counted(tmp_path: Path) -> None:
    arguments = ["--dataset=tiny_imagenet", "--num_images=all", f"--data_dir={tmp_path}"]
    values = settings.parse(arguments)
    assert image_count(values) == 10_000
    assert not list(tmp_path.iterdir())
    assert "--num_images=all" in values.flags_into_string().splitlines()


@pytest.mark.parametrize("given", ["some", "1.5", ""])
def test_what_is_neither_a_number_nor_all_is_named(given: str) -> None:
    with pytest.raises(InputError, match="a whole number or all"):
        settings.parse([f"--num_images={given}"])
