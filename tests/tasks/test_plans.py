"""What travels to the workers of a cluster."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import time

import numpy as np

from alp_repro.attacks import PGD, Execution, as_ensemble
from alp_repro.evaluation.heat_maps import StepSize
from alp_repro.evaluation.restarts import AttackJob
from alp_repro.tasks.plans import ModelFile, ModelPlan, attack_plan
from tests.small_model import small_model


def test_files_of_one_model_are_equal_so_that_it_is_loaded_once() -> None:
    model = small_model()
    first = ModelFile.of(model)
    time.sleep(1.1)  # a .keras file holds the second in which it was made
    second = ModelFile.of(model)
    assert second == first and second.load() is first.load()
    images = np.random.default_rng(0).uniform(0, 1, (3, *model.input_shape[1:])).astype(np.float32)
    np.testing.assert_array_equal(first.load()(images), model(images))

    weights = model.get_weights()
    model.set_weights([weights[0] + 1e-3, *weights[1:]])
    assert ModelFile.of(model) != first


def test_an_attack_travels_with_all_that_its_outcomes_depend_on() -> None:
    model, attack = small_model(), PGD(eps=0.1, eps_iter=0.05, nb_iter=2, restarts=2)
    images = np.random.default_rng(0).uniform(0, 1, (3, *model.input_shape[1:])).astype(np.float32)
    labels, seeds = np.zeros(3, np.int32), np.array([7, 2, 9])
    job = AttackJob(model, images, labels, as_ensemble(attack), 3, Execution(batch_size=4), seeds)
    items = np.array([0, 1, 2, 0]), np.array([0, 0, 0, 1])
    here = job.program()(*items)
    there = pickle.loads(pickle.dumps(attack_plan(job))).prepare()(items)
    np.testing.assert_array_equal(there.losses, here.losses)
    assert not there.adversarial.size
    by_place = dataclasses.replace(job, image_index=None).program()(*items)
    assert (by_place.losses != here.losses).all()

    step = functools.partial(
        StepSize,
        images=images,
        labels=labels,
        attack=attack,
        counts=[1, 2],
        seed=3,
        execution=Execution(batch_size=4),
    )
    plan = pickle.loads(pickle.dumps(ModelPlan(ModelFile.of(model), step)))
    np.testing.assert_array_equal(plan.prepare()(0.05), step(model)(0.05))
