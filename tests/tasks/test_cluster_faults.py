"""A whole table on a Ray cluster whose machines and driver die: it ends as the serial one."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alp_repro import files
from tests.same_results import assert_same_results

pytest.importorskip("ray", reason="the extra [cluster] is not installed")
from ray._private.node import Node
from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[2]
ROW = "--dataset=mnist\n--row={row}\n--model_width=2\n--epochs=24\n--train_images=2000\n"
FILES = {
    "mnist/plain.cfg": ROW.format(row="plain"),
    "mnist/lsq.cfg": ROW.format(row="lsq") + "--regularizer=lsq\n--regularizer_weight=0.5\n",
    "scale/quick/mnist/all.cfg": "--num_images=60\n--eval_batch_size=20\n--noestimate\n",
    "attacks/one.cfg": "--attack=pgd,eps=10,eps_iter=2,nb_iter=20,restarts=60\n",
    "tables/table1.cfg": "--dataset=mnist\n--rows=plain,lsq\n--grid=one\n",
}


pytestmark = pytest.mark.slow


@pytest.fixture
def machines() -> Iterator[Cluster]:
    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    yield found
    found.shutdown()


def test_machines_and_the_driver_die_and_the_table_is_the_serial_one(
    machines: Cluster, tmp_path: Path
) -> None:
    for name, text in FILES.items():
        files.write_text(tmp_path / "flags" / name, text)
    second, third = machines.add_node(num_cpus=1), machines.add_node(num_cpus=1)
    runs = tmp_path / "cluster/quick/mnist"

    with driver(tmp_path, "serial", "--jobs=1", "--threads=1") as here:
        with driver(tmp_path, "cluster", f"--ray={machines.address}") as started:
            wait_for(lambda: all(has_begun(runs / row) for row in ROWS), started)
            wait_for(lambda: TRAINS in at_work(second) | at_work(third), started)
            # A training that has saved an epoch runs there, and goes on elsewhere.
            lost, other = (second, third) if TRAINS in at_work(second) else (third, second)
            machines.remove_node(lost, allow_graceful=False)
            wait_for(lambda: any(results(runs, row) for row in ROWS), started)
            # With what: a training or an attack, as Ray has placed them.
            wait_for(lambda: bool(at_work(other)), started)
            machines.remove_node(other, allow_graceful=False)
            time.sleep(2)
            started.send_signal(signal.SIGKILL)
        with driver(tmp_path, "cluster", f"--ray={machines.address}") as again:
            assert again.wait(timeout=600) == 0
        assert here.wait(timeout=600) == 0
    assert_same_results(tmp_path / "cluster/quick", tmp_path / "serial/quick")


ROWS = ("plain", "lsq")
TRAINS, ATTACKS = "ray::_do", "ray::_Worker.do"


def has_begun(run: Path) -> bool:
    return (run / "backup/latest.npz").exists() or (run / "recipe.json").exists()


def results(runs: Path, row: str) -> list[str]:
    return [path.name for path in (runs / row / "attacks").glob("[!.]*.npz")]


def command(folder: Path, runs: str, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "experiments.table",
        "--table=1",
        f"--flags_dir={folder / 'flags'}",
        f"--runs_dir={folder / runs}",
        *arguments,
    ]


def at_work(machine: Node) -> set[str]:
    """The titles that Ray gives to what the machine's processes train or attack just now."""
    raylet = machine.all_processes["raylet"][0].process.pid
    found = subprocess.run(
        ["ps", "--ppid", str(raylet), "-o", "args="], capture_output=True, text=True, check=False
    )
    return {TRAINS, ATTACKS} & {line.strip() for line in found.stdout.splitlines()}


@contextlib.contextmanager
def driver(folder: Path, runs: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(command(folder, runs, *arguments), cwd=ROOT)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def wait_for(condition: Callable[[], bool], started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.05)
