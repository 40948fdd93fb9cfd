"""Work on a Ray cluster of three machines on this one: exact, and whole whatever dies."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro.attacks import Attack
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, evaluate
from alp_repro.evaluation.heat_maps import heat_map

ray = pytest.importorskip("ray", reason="the extra [cluster] is not installed")
from ray.cluster_utils import Cluster as RayCluster  # noqa: E402

from alp_repro.tasks import cluster  # noqa: E402
from alp_repro.tasks.attack import attack_on_workers, columns_on_workers  # noqa: E402
from alp_repro.tasks.cluster import Share, Workers  # noqa: E402

ATTACK = Attack(eps=0.05, eps_iter=0.02, nb_iter=3, restarts=30)
SETTING = {"attack": ATTACK, "batch_size": 16, "seed": 2}


@pytest.fixture(scope="module")
def machines() -> Iterator[RayCluster]:
    """A head and two more, of one core each."""
    found = RayCluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    found.add_node(num_cpus=1)
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def joined(machines: RayCluster) -> Iterator[cluster.Cluster]:
    with cluster.joined(machines.address, Share()) as found:
        yield found


@pytest.fixture(scope="module", params=[1, 3])
def workers(
    request: pytest.FixtureRequest, joined: cluster.Cluster
) -> Iterator[tuple[int, Workers]]:
    """One worker, as if trainings had the other machines, and three."""
    joined.trainings = 3 - request.param
    found = Workers(joined)
    yield request.param, found
    found.end()


@pytest.fixture(scope="module")
def serial(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> AttackRecord:
    return evaluate(model, images, labels, record_losses=True, save_adversarial=True, **SETTING)


def test_the_number_of_workers_changes_nothing(
    workers: tuple[int, Workers],
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    serial: AttackRecord,
) -> None:
    count, shared = workers
    everything = evaluate(
        model,
        images,
        labels,
        record_losses=True,
        save_adversarial=True,
        **SETTING,
        run_restarts=attack_on_workers(shared),
    )
    assert len(shared) == count
    for name in ("first_break", "next_restart", "losses", "broken", "adversarial"):
        np.testing.assert_array_equal(getattr(everything, name), getattr(serial, name))
    # Without losses, what is broken leaves: workers run ahead, and find the same.
    found = evaluate(model, images, labels, **SETTING, run_restarts=attack_on_workers(shared))
    assert 0 < serial.standing.sum() < len(labels)
    np.testing.assert_array_equal(found.first_break, serial.first_break)
    for restarts in (1, 7, 30):
        np.testing.assert_array_equal(
            found.restarts_spent(restarts), serial.restarts_spent(restarts)
        )


def test_heat_maps_are_the_same(
    workers: tuple[int, Workers], model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    grid: dict[str, Any] = {"eps_iters": [0.01, 0.02, 0.03], "nb_iters": [1, 3], **SETTING}
    here = heat_map(model, images, labels, **grid)
    there = heat_map(model, images, labels, **grid, run_columns=columns_on_workers(workers[1]))
    np.testing.assert_array_equal(there.broken, here.broken)
    assert here.broken.any() and not here.broken.all()


@dataclasses.dataclass(frozen=True)
class SlowAndCounted:
    """A plan whose block 0 takes long the first time; it notes each opening."""

    folder: str

    def prepare(self) -> Callable[[int], int]:
        folder = Path(self.folder)
        (folder / f"opened.{time.monotonic_ns()}").touch()

        def block(number: int) -> int:
            first = number == 0 and not (folder / "begun").exists()
            if first:
                (folder / "begun").touch()
                time.sleep(600)
            return number * number

        return block


@pytest.mark.parametrize("workers", [3], indirect=True)
def test_a_straggler_is_not_waited_for_and_a_plan_is_opened_once_a_worker(
    workers: tuple[int, Workers], tmp_path: Path
) -> None:
    shared = workers[1]
    blocks = iter(range(50))
    found = dict(
        shared.results(SlowAndCounted(str(tmp_path)), lambda: next(blocks, None), idle=lambda: None)
    )
    assert found == {number: number * number for number in range(50)}
    assert len(list(tmp_path.glob("opened.*"))) <= 3


def test_more_than_there_is_is_told(machines: RayCluster, joined: cluster.Cluster) -> None:
    with pytest.raises(InputError, match="has 0 GPUs and 1 CPUs"):
        cluster.check_room(cluster.Cluster(Share(cpus=1, gpus=2)))
    with pytest.raises(InputError, match="cpus_per_task=5: no machine"):
        cluster.check_room(cluster.Cluster(Share(cpus=5)))


@pytest.mark.parametrize("name", ["alp_repro", "tensorflow", "python"])
def test_other_versions_are_told(
    joined: cluster.Cluster, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ours = cluster.versions()
    monkeypatch.setattr(cluster, "versions", lambda: ours)
    monkeypatch.setattr(cluster, "our_versions", lambda: {**ours, name: "other"})
    with pytest.raises(InputError, match=rf"machine .* has {name} .*, this one other"):
        cluster.check_versions()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("127.0.0.1:1", "nothing answers there"),
        ("nowhere", "local, auto, or the HOST:PORT"),
        ("ray://127.0.0.1:10001", "on a machine of the cluster"),
    ],
)
def test_an_address_that_does_not_answer_is_told(address: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint), cluster.joined(address, Share()):
        pass
