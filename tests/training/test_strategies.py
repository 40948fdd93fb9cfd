"""Trainings on several replicas and machines, through the binary: the losses of one device."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from alp_repro import runs, training
from alp_repro.attacks import PGD
from alp_repro.data import Images, prepare
from alp_repro.data.specs import dataset_spec
from alp_repro.errors import InputError
from alp_repro.training import Recipe
from experiments.flags import settings
from experiments.running import devices
from tests.data_factory import make_cifar10

ROOT = Path(__file__).resolve().parents[2]
# 28 images make a partial batch; everything that draws random numbers is on.
TRAIN = [
    "--dataset=cifar10",
    "--row=mine",
    "--model=lenet",
    "--model_width=2",
    "--epochs=2",
    "--batch_size=8",
    "--train_images=28",
    "--regularizer=alp",
    "--regularizer_weight=0.5",
    "--adversarial_fraction=0.5",
    "--noise_stddev=0.1",
    "--train_eps=76.5",
    "--train_eps_iter=25",
    "--train_nb_iter=2",
    "--train_target=random",
]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(folder: Path, data_dir: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "experiments.train",
            *TRAIN,
            *flags,
            f"--runs_dir={folder}",
            f"--data_dir={data_dir}",
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
    )


def ends(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Return the output of each; it takes twenty seconds, or minutes on a busy machine."""
    try:
        return [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def log_of(folder: Path) -> list[dict[str, float]]:
    lines = csv.DictReader((folder / "cifar10" / "mine" / "training.csv").read_text().splitlines())
    return [{k: float(v) for k, v in line.items() if v != "NA"} for line in lines]


@pytest.mark.slow
def test_two_machines_train_as_one_device(tmp_path: Path) -> None:
    """Two local processes; only the first writes, and the losses are equal but for rounding."""
    data_dir = tmp_path / "tfds"
    prepare.prepare_from_source(dataset_spec("cifar10"), make_cifar10(tmp_path), data_dir=data_dir)
    alone = start(tmp_path / "alone", data_dir)
    (output,) = ends([alone])
    assert alone.returncode == 0, output

    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = [
        start(
            tmp_path / "together",
            data_dir,
            "--strategy=multi_worker",
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            ),
        )
        for index in range(2)
    ]
    outputs = ends(workers)
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert "2 replicas" in outputs[0] and "trained: " in outputs[0]
    assert "trained: " not in outputs[1]

    expected = log_of(tmp_path / "alone")
    found = log_of(tmp_path / "together")  # once an epoch, although there are two processes
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    models = [
        runs.load_model(tmp_path / name / "cifar10" / "mine" / "model.keras").get_weights()
        for name in ("alone", "together")
    ]
    for one, other in zip(*models, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def losses(log: Path) -> list[float]:
    return [float(line["loss"]) for line in csv.DictReader(log.read_text().splitlines())]


def made_up(count: int, shape: tuple[int, int, int]) -> Images:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Images(pixels, np.arange(count, dtype=np.int32) % 10, np.arange(count), "made up")


def test_the_flag_takes_every_device_of_the_machine() -> None:
    values = settings.parse([])
    devices.define_flags(values)
    values(["test", "--strategy=mirrored"])
    chosen = devices.choose(values)
    assert chosen.strategy is not None and chosen.strategy.num_replicas_in_sync == 2
    assert "2 replicas" in chosen.description and chosen.writes


@pytest.mark.slow
def test_replicas_keep_batch_norm_of_their_own_share(
    tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    """A residual network: it trains, and what it saves is usable."""
    recipe = Recipe(dataset="cifar10", model="resnet20_v2", model_width=2, epochs=1, batch_size=8)
    run = runs.RunDir(tmp_path)
    data = made_up(8, (32, 32, 3))
    model = training.train(recipe, run, data, strategy=two_replicas, verbose=0)
    assert np.isfinite(model(data.unit_scale).numpy()).all()
    moved = [w for w in model.weights if w.path.endswith("moving_variance")]
    assert moved and all(np.any(np.asarray(w) != 1) for w in moved)


@pytest.mark.slow
def test_replicas_craft_in_bfloat16_as_one_device_does(
    tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    recipe = Recipe(
        dataset="mnist",
        model="lenet",
        model_width=2,
        epochs=2,
        batch_size=8,
        penalties={"alp": 0.5},
        attack=PGD(eps=0.3, eps_iter=0.1, nb_iter=2, dtype="bfloat16"),
    )
    data, found = made_up(16, (28, 28, 1)), []
    for strategy in (None, two_replicas):
        run = runs.RunDir(tmp_path / str(strategy is None))
        training.train(recipe, run, data, strategy=strategy, verbose=0)
        found.append(losses(run.log))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_batch_must_divide_over_the_replicas(
    tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    recipe = Recipe(dataset="mnist", model="lenet", model_width=2, epochs=1, batch_size=9)
    with pytest.raises(InputError, match=r"batch_size 9: .*multiple of 2"):
        training.train(
            recipe, runs.RunDir(tmp_path), made_up(9, (28, 28, 1)), strategy=two_replicas, verbose=0
        )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{not json",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "first"}}',
    ],
)
def test_a_tf_config_that_is_none_is_shown_with_what_is_needed(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    values = settings.parse([])
    devices.define_flags(values, several_machines=True)
    values(["test", "--strategy=multi_worker"])
    with pytest.raises(InputError, match=r"TF_CONFIG=.* expects JSON as in") as caught:
        devices.choose(values)
    assert "\n" not in str(caught.value)
