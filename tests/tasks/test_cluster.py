"""Work on a Ray cluster of three machines on this one: exact, and whole whatever dies."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro.attacks import PGD, Ensemble, Phase
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, evaluate
from alp_repro.evaluation.heat_maps import heat_map

ray = pytest.importorskip("ray", reason="the extra [cluster] is not installed")
from ray.cluster_utils import Cluster as RayCluster  # noqa: E402

from alp_repro.tasks import cluster  # noqa: E402
from alp_repro.tasks import workers as workers_module  # noqa: E402
from alp_repro.tasks.attack import batches_on_workers, columns_on_workers  # noqa: E402
from alp_repro.tasks.cluster import TaskResources  # noqa: E402
from alp_repro.tasks.on_cluster import ClusterTasks  # noqa: E402
from alp_repro.tasks.workers import Workers  # noqa: E402
from tests.tasks.small_tasks import Count, Write  # noqa: E402

pytestmark = pytest.mark.slow

ATTACK = PGD(eps=0.05, eps_iter=0.02, nb_iter=3, restarts=30)
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
    before = signal.signal(signal.SIGTERM, raise_terminated)
    with cluster.joined(machines.address, TaskResources()) as found:
        yield found
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module", params=[1, 3])
def workers(
    request: pytest.FixtureRequest, joined: cluster.Cluster
) -> Iterator[tuple[int, Workers]]:
    """One worker, as if trainings had the other machines, and three."""
    joined.tasks = 3 - request.param
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
        executor=batches_on_workers(shared),
    )
    assert len(shared) == count
    for name in ("first_break", "next_restart", "losses", "broken", "adversarial"):
        np.testing.assert_array_equal(getattr(everything, name), getattr(serial, name))
    # Without losses, what is broken leaves: workers run ahead, which leaves no trace.
    here = evaluate(model, images, labels, **SETTING)
    found = evaluate(model, images, labels, **SETTING, executor=batches_on_workers(shared))
    assert 0 < serial.standing.sum() < len(labels)
    for name in ("first_break", "next_restart", "nonfinite_gradients"):
        np.testing.assert_array_equal(getattr(found, name), getattr(here, name))
    np.testing.assert_array_equal(found.first_break, serial.first_break)
    for restarts in (1, 7, 30):
        np.testing.assert_array_equal(
            found.restarts_spent(restarts), serial.restarts_spent(restarts)
        )


def test_a_budget_is_shared_out_as_in_one_process(
    workers: tuple[int, Workers], model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    """Who goes on is known when all workers have given back the first restarts."""
    rounds = [dataclasses.replace(ATTACK, restarts=count) for count in (2, 5, 11)]
    later = [Phase(one, on="closest", budget=8) for one in rounds[1:]]
    attack = Ensemble("rounds", (Phase(rounds[0]), *later))
    options: dict[str, Any] = {**SETTING, "attack": attack}
    here = evaluate(model, images, labels, **options)
    assert 3 < here.restarts_spent(18)[here.standing].mean() < 18
    found = evaluate(model, images, labels, **options, executor=batches_on_workers(workers[1]))
    np.testing.assert_array_equal(found.first_break, here.first_break)
    np.testing.assert_array_equal(found.restarts_spent(18), here.restarts_spent(18))


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
    """A plan whose block 0 takes long, or ends its process, the first time; it notes openings."""

    folder: str
    dies: bool = False

    def prepare(self) -> Callable[[int], int]:
        folder = Path(self.folder)
        (folder / f"opened.{time.monotonic_ns()}").touch()

        def block(number: int) -> int:
            first = number == 0 and not (folder / "begun").exists()
            if first:
                (folder / "begun").touch()
                if self.dies:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(600)
            return number * number

        return block


@pytest.mark.parametrize("workers", [3], indirect=True)
def test_a_straggler_is_not_waited_for_and_a_plan_is_opened_once_a_worker(
    workers: tuple[int, Workers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "LATE_SECONDS", 0.5)
    shared = workers[1]
    blocks = iter(range(50))
    found = dict(
        shared.results(SlowAndCounted(str(tmp_path)), lambda: next(blocks, None), idle=lambda: None)
    )
    assert found == {number: number * number for number in range(50)}
    assert len(list(tmp_path.glob("opened.*"))) <= 3


@pytest.mark.parametrize("workers", [3], indirect=True)
def test_a_worker_that_dies_is_started_again_and_does_its_block(
    workers: tuple[int, Workers], tmp_path: Path
) -> None:
    blocks, plan = iter(range(6)), SlowAndCounted(str(tmp_path), dies=True)
    found = workers[1].results(plan, lambda: next(blocks, None), idle=lambda: None)
    assert dict(found) == {number: number * number for number in range(6)}


@dataclasses.dataclass(frozen=True)
class Squares:
    """A plan that refuses blocks from a number on."""

    refuses: int

    def prepare(self) -> Callable[[int], int]:
        def block(number: int) -> int:
            if number >= self.refuses:
                raise InputError(f"no {number}")
            return number * number

        return block


@pytest.mark.parametrize("workers", [3], indirect=True)
def test_a_plan_that_fails_is_one_line_and_leaves_the_next_alone(
    workers: tuple[int, Workers],
) -> None:
    for refuses in (2, 50):  # the others of the first plan are still to fail
        blocks = iter(range(20))
        results = workers[1].results(
            Squares(refuses), lambda blocks=blocks: next(blocks, None), idle=lambda: None
        )
        if refuses == 2:
            with pytest.raises(InputError, match=r"^no \d+$"):
                list(results)
        else:
            assert dict(results) == {number: number * number for number in range(20)}


@pytest.mark.parametrize("workers", [1], indirect=True)
def test_tasks_end_as_on_this_machine_and_one_that_dies_goes_on(
    workers: tuple[int, Workers], tmp_path: Path
) -> None:
    """The rest of what test_processes.py says of the executors here, for that of the cluster."""
    hows = {"a": "well", "b": "refused", "c": "broken"}
    tasks = [Write(tmp_path / name, name, how) for name, how in hows.items()]
    ours = cluster.Cluster(TaskResources())
    running = ClusterTasks(ours, [*tasks, Count(tmp_path / "count", "count")])
    assert ours.tasks == len(running) == 4
    ended = {}
    while len(running):
        ended.update({done.task.name: done.error for done in running.ended(seconds=1.0)})
    assert ours.tasks == 0
    assert ended["a"] is ended["count"] is None and ended["b"] == "not like this"
    assert "ZeroDivisionError: a bug (" in str(ended["c"]) and "small_tasks.py" in str(ended["c"])
    assert (tmp_path / "a/a").read_text().startswith("done")
    # What was told of is not done again, and what the task removed is gone.
    pids = (tmp_path / "count/result").read_text().split()
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert not (tmp_path / "count/counted").exists()
    news = running.news()
    assert news.statuses["a"].text == "working" and ("a", "a says") in news.lines


@pytest.mark.parametrize("workers", [1], indirect=True)
def test_workers_that_find_no_room_are_told_of(
    workers: tuple[int, Workers],
    joined: cluster.Cluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(workers_module, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(joined, "tasks", 0)
    blocks, crowded = iter(range(3)), Workers(joined)
    try:
        found = crowded.results(Squares(50), lambda: next(blocks, None), idle=lambda: None)
        assert dict(found) == {0: 0, 1: 1, 2: 4}
    finally:
        crowded.end()
    assert [r.message for r in caplog.records] == [f"no worker has started for 0 s: {cluster.HINT}"]


def test_sigterm_is_what_it_was(joined: cluster.Cluster) -> None:
    with pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


class Terminated(Exception):
    """What the fixture `joined` lets SIGTERM raise."""


def raise_terminated(_signal: int, _frame: object) -> None:
    raise Terminated


def test_a_machine_that_cannot_do_the_work_is_told(
    joined: cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def versions() -> dict[str, str]:
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(cluster, "versions", versions)
    with pytest.raises(InputError, match=r"failed .*No module named 'tensorf"):
        cluster.check_versions()


def test_more_than_there_is_is_told(machines: RayCluster, joined: cluster.Cluster) -> None:
    with pytest.raises(InputError, match="has 0 GPUs and 1 CPUs"):
        cluster.check_room(cluster.Cluster(TaskResources(cpus=1, gpus=2)))
    with pytest.raises(InputError, match="cpus_per_task=5: no machine"):
        cluster.check_room(cluster.Cluster(TaskResources(cpus=5)))


@pytest.mark.parametrize("name", ["alp_repro", "tensorflow", "python"])
def test_other_versions_are_told(
    joined: cluster.Cluster, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ours = cluster.versions()
    monkeypatch.setattr(cluster, "versions", lambda: ours)
    monkeypatch.setattr(cluster, "our_versions", lambda: {**ours, name: "other"})
    with pytest.raises(InputError, match=rf"machine .* has {name} .*, .*this one has other"):
        cluster.check_versions()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("127.0.0.1:1", "nothing answers there"),
        ("nowhere.invalid:6379", "nothing answers there .*no address"),
        ("x" * 300 + ":6379", "nothing answers there .*no address"),
        ("nowhere", "local, auto, or the HOST:PORT"),
        ("ray://127.0.0.1:10001", "on a machine of the cluster"),
    ],
)
def test_an_address_that_does_not_answer_is_told(address: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint), cluster.joined(address, TaskResources()):
        pass
