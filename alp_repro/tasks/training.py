"""Trainings on the machines of a cluster: their runs lie where the driver is, states travel.

A training is one Ray task. Its state travels to a desk, an actor beside the driver and the one
writer of the runs, after each epoch; a task that Ray starts again elsewhere takes it from there. So
no machine needs to see the runs folder, nor the data set, and a lost machine costs an epoch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
import tensorflow as tf
from ray.exceptions import RayError

from alp_repro import files, training
from alp_repro.data import Images
from alp_repro.errors import InputError
from alp_repro.runs import RunDir
from alp_repro.tasks.cluster import RETRIES, Cluster, Share, told, use_threads
from alp_repro.tasks.plans import ModelFile
from alp_repro.tasks.processes import Lines
from alp_repro.training import Recipe, TrainingProgress, Watch

_TELL_SECONDS = 1.0
_LOCK_SECONDS = 30.0  # that the desk of a driver that was killed may still be there

# Files of a run, relative to its folder, as uint8 arrays.
RunFiles = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A training: what `training.train` takes, as values that travel.

    Attributes:
      name: of the run; what people call it.
      recipe, watch: see `training.train`.
      init_from: the model to start from.
      details: further provenance.
      words: how progress is told.
    """

    name: str
    recipe: Recipe
    init_from: ModelFile | None
    watch: Watch | None
    details: dict[str, Any]
    words: Callable[[TrainingProgress], str]

    def run(self, folder: Path, data: Images, report: Callable[[TrainingProgress], None]) -> None:
        """Trains into a folder, from what lies there."""
        training.train(
            self.recipe,
            RunDir(folder),
            data,
            init_from=self.init_from.load() if self.init_from else None,
            watch=self.watch,
            jit_compile=bool(tf.config.list_physical_devices("GPU")),
            report=report,
            verbose=0,
            details=self.details,
        )


@dataclasses.dataclass(frozen=True)
class News:
    """What trainings tell of their progress, by name, and the lines that they print."""

    told: dict[str, str]
    said: list[tuple[str, str]]


class _Desk:
    """The writer of the runs, and what the trainings tell; lives on the driver's machine."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        """Locks the runs, as a training in one process does."""
        self._runs = {name: RunDir(Path(folder)) for name, folder in folders.items()}
        self._told: dict[str, str] = {}
        self._said: list[tuple[str, str]] = []
        self._locks = contextlib.ExitStack()
        deadline = time.monotonic() + _LOCK_SECONDS
        for run in self._runs.values():
            while True:
                try:
                    self._locks.enter_context(run.exclusive())
                    break
                except InputError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.5)

    def ready(self) -> None:
        """Answers when the runs are locked."""

    def read(self, name: str) -> RunFiles:
        """What there is of a run."""
        return _read(self._runs[name].path)

    def write(self, name: str, content: RunFiles) -> None:
        """Replaces files of a run; what says that it is finished comes last."""
        run = self._runs[name]
        last = run.recipe.name
        for file in sorted(content, key=lambda file: file == last):
            _write(run.path / file, content[file])
        if last in content:
            shutil.rmtree(run.backup, ignore_errors=True)

    def tell(self, name: str, text: str) -> None:
        """Notes what a training tells."""
        self._told[name] = text

    def say(self, name: str, line: str) -> None:
        """Notes a line that a training prints."""
        self._said.append((name, line))

    def news(self) -> News:
        """What was told and said since the last call."""
        news = News(self._told, self._said)
        self._told, self._said = {}, []
        return news


def _read(folder: Path) -> RunFiles:
    """The files of a training, those of its attacks and what is hidden left out."""
    found = [path for path in (*folder.glob("*"), *folder.glob("backup/*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): np.fromfile(path, np.uint8)
        for path in found
        if not path.name.startswith(".")
    }


def _write(path: Path, content: np.ndarray) -> None:
    files.write_atomically(path, lambda file: content.tofile(file))


def _train(task: Training, data: list[Any], desk: Any, share: Share) -> float:
    """The Ray task: trains in a folder of its own, and sends what is new to the desk.

    Returns the seconds that it took.
    """
    started = time.monotonic()
    use_threads(share)
    with tempfile.TemporaryDirectory() as name:
        folder, last = Path(name), [float("-inf")]
        for file, content in ray.get(desk.read.remote(task.name)).items():
            _write(folder / file, content)

        def report(progress: TrainingProgress) -> None:
            if progress.saved:
                ray.get(desk.write.remote(task.name, _read(folder)))
            if time.monotonic() - last[0] > _TELL_SECONDS:
                last[0] = time.monotonic()
                desk.tell.remote(task.name, task.words(progress))

        with contextlib.redirect_stdout(Lines(lambda line: desk.say.remote(task.name, line))):
            task.run(folder, ray.get(data[0]), report)
        ray.get(desk.write.remote(task.name, _read(folder)))
    return time.monotonic() - started


@dataclasses.dataclass(frozen=True)
class TrainingEnded:
    """A training that is over, what it took, and in one line why it failed if it did."""

    name: str
    seconds: float = 0.0
    error: str | None = None


class Trainings:
    """Trainings that run, or wait for room, on a cluster."""

    def __init__(
        self, cluster: Cluster, tasks: Mapping[Path, Training], data: Callable[[], Images]
    ) -> None:
        """Hands them to Ray.

        Args:
          cluster: where.
          tasks: run folder -> what is trained into it.
          data: gives their training set, if there is any.

        Raises:
          InputError: another process fills one of the runs.
        """
        self._cluster = cluster
        self._running: dict[ray.ObjectRef, str] = {}
        self._desk: Any = None
        if not tasks:
            return
        folders = {task.name: str(folder.resolve()) for folder, task in tasks.items()}
        desk = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=cluster.here())
        self._desk = desk.remote(folders)
        try:
            ray.get(self._desk.ready.remote())
        except RayError as error:
            raise told(error) from None
        shared = [ray.put(data())]
        train = ray.remote(max_retries=RETRIES)(_train).options(**cluster.share.options)
        for task in tasks.values():
            ref = train.remote(task, shared, self._desk, cluster.share)
            self._running[ref] = task.name
        cluster.trainings = len(self._running)

    def news(self) -> News:
        """What trainings have told and said since the last call."""
        return ray.get(self._desk.news.remote()) if self._desk is not None else News({}, [])

    def ended(self, *, seconds: float = 0.0) -> list[TrainingEnded]:
        """Trainings that have ended since the last call; waits so long for one."""
        back, _ = ray.wait(list(self._running), timeout=seconds) if self._running else ([], [])
        found = []
        for ref in back:
            name = self._running.pop(ref)
            try:
                found.append(TrainingEnded(name, seconds=ray.get(ref)))
            except RayError as error:
                found.append(TrainingEnded(name, error=str(told(error))))
        self._cluster.trainings = len(self._running)
        return found

    def __len__(self) -> int:
        return len(self._running)
