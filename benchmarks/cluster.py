"""An attack on LeNet by 1, 2, … workers of one core each: items a second, and what sharing costs.

    python -m benchmarks.cluster --workers=1,2,4 --rounds=3

Needs the extra [cluster]. The same attack runs in each round with each number of workers; medians
are printed, and for one worker the share of its time that is not computation, which the worker
itself times. In it is what an attack costs once: saving and sending the model. What Ray takes for a
block is measured apart, with blocks of the same size that compute nothing. Ray gives its workers a
niceness of 15; where others compute too, RAY_worker_niceness=0 before the command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from absl import app, flags
from ray.cluster_utils import Cluster as RayCluster

from alp_repro.attacks import PGD, Attack, as_ensemble
from alp_repro.attacks.batches import Execution
from alp_repro.evaluation.record import new_record
from alp_repro.evaluation.restarts import AttackJob, attack_with_restarts
from alp_repro.models import build_model
from alp_repro.system import machine
from alp_repro.system.dtypes import Dtype
from alp_repro.tasks import cluster
from alp_repro.tasks.attack import batches_on_workers
from alp_repro.tasks.plans import ModelPlan, attack_plan
from alp_repro.tasks.workers import Workers

FLAGS = flags.FLAGS
flags.DEFINE_list("workers", ["1", "2"], "Numbers of workers.")
flags.DEFINE_integer("rounds", 3, "Rounds, each with every number.")
flags.DEFINE_integer("blocks", 12, "Blocks of 200 items in a round.")
flags.DEFINE_integer("nb_iter", 40, "Steps of an item.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Dtype of crafting.")

_BATCH = 200
_EMPTY = 300


@dataclasses.dataclass(frozen=True, eq=False)
class Timed:
    """A plan whose blocks say how long they computed."""

    plan: ModelPlan

    def prepare(self) -> Callable[[Any], float]:
        """The function of a block, once for all of them."""
        block_of = self.plan.prepare()

        def seconds(block: Any) -> float:
            started = time.monotonic()
            block_of(block)
            return time.monotonic() - started

        return seconds


@dataclasses.dataclass(frozen=True)
class Empty:
    """A plan whose blocks compute nothing; their results are as large as those of an attack."""

    def prepare(self) -> Callable[[Any], Any]:
        """The function of a block."""
        return lambda block: block


def main(_: list[str]) -> None:
    """Measures and prints."""
    cluster.use_threads(cluster.TaskResources())
    dtype: Dtype = FLAGS.dtype
    attack = PGD(eps=0.3, eps_iter=0.01, nb_iter=FLAGS.nb_iter, restarts=FLAGS.blocks, dtype=dtype)
    counts = [int(count) for count in FLAGS.workers]
    model = build_model("lenet", image_shape=(28, 28, 1), num_classes=10)
    images = np.random.default_rng(0).uniform(0, 1, (_BATCH, 28, 28, 1)).astype(np.float32)
    labels = np.argmax(model(images), axis=1).astype(np.int32)
    computing = empty = 0.0
    found: dict[int, list[float]] = {count: [] for count in counts}
    with cluster_of(max(counts)) as joined:
        for count in counts:
            joined.tasks = joined.slots - count
            workers = Workers(joined)
            for round_ in range(FLAGS.rounds + 1):
                seconds = seconds_of_all(workers, model, images, labels, attack)
                print(f"{count} workers, round {round_}: {seconds:.2f} s", flush=True)
                if round_:  # the first one compiles
                    found[count].append(seconds)
            if count == 1:
                computing = seconds_inside(workers, model, images, labels, attack)
                empty = seconds_of_empty(workers)
            workers.end()
    items = _BATCH * FLAGS.blocks
    print(f"{machine.describe()}; {FLAGS.dtype}, {FLAGS.nb_iter} steps, {FLAGS.blocks} blocks")
    print(
        "| workers | items/s | × the first | what is not computation |\n"
        "| ---: | ---: | ---: | ---: |"
    )
    rates = {count: items / statistics.median(seconds) for count, seconds in found.items()}
    for count, rate in rates.items():
        share = f"{1 - computing / statistics.median(found[1]):.1%}" if count == 1 else ""
        print(f"| {count} | {rate:,.0f} | {rate / rates[counts[0]]:.2f} | {share} |")
    if 1 in found:
        block = computing / FLAGS.blocks
        print(f"a block computes for {block:.2f} s; an empty one takes {empty * 1e3:.1f} ms")


@contextlib.contextmanager
def cluster_of(cpus: int) -> Iterator[cluster.Cluster]:
    """A machine that says it has so many cores; workers past those that it has share them."""
    machines = RayCluster(
        initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False}
    )
    try:
        with cluster.joined(machines.address, cluster.TaskResources()) as joined:
            yield joined
    finally:
        machines.shutdown()


def seconds_inside(
    workers: Workers,
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    attack: Attack,
) -> float:
    """Time that the blocks of all items take inside the workers, added, when all is compiled."""
    execution = Execution(batch_size=_BATCH)
    plan = attack_plan(AttackJob(model, images, labels, as_ensemble(attack), 0, execution))
    blocks = [(np.arange(_BATCH), np.full(_BATCH, restart)) for restart in range(FLAGS.blocks)]
    waiting: list[Any] = []

    def next_block() -> Any:
        return waiting.pop() if waiting else None

    seconds = 0.0
    for _ in range(2):  # the first one compiles
        waiting.extend(blocks)
        found = workers.results(Timed(plan), next_block, idle=lambda: None)
        seconds = sum(each for _, each in found)
    return seconds


def seconds_of_empty(workers: Workers) -> float:
    """Time of a block that computes nothing."""
    blocks = iter([(np.arange(_BATCH), np.zeros(_BATCH, np.int64))] * _EMPTY)
    started = time.monotonic()
    for _ in workers.results(Empty(), lambda: next(blocks, None), idle=lambda: None):
        pass
    return (time.monotonic() - started) / _EMPTY


def seconds_of_all(
    workers: Workers,
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    attack: Attack,
) -> float:
    """Time of all blocks; every restart of every image runs."""
    record = new_record(
        labels=labels,
        indices=np.arange(_BATCH),
        clean_predictions=labels,
        settings={},
        record_losses=True,
    )
    started = time.monotonic()
    attack_with_restarts(
        model,
        images,
        record,
        attack=attack,
        seed=0,
        execution=Execution(batch_size=_BATCH),
        executor=batches_on_workers(workers),
    )
    return time.monotonic() - started


if __name__ == "__main__":
    app.run(main)
