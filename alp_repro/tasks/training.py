"""A training as a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alp_repro import training
from alp_repro.data import Images
from alp_repro.runs import RunDir
from alp_repro.tasks.plans import ModelFile
from alp_repro.tasks.task import Status
from alp_repro.training import Recipe, TrainingProgress, Watch

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A training: the arguments of `training.train` as values that can be sent elsewhere.

    Attributes:
      name: of the run.
      folder: of the run.
      data: returns the training set.
      recipe, watch: see `training.train`.
      init_from: the model to start from.
      details: additional provenance.
      words: describes the progress.
    """

    name: str
    folder: Path
    data: Callable[[], Images]
    recipe: Recipe
    init_from: ModelFile | None
    watch: Watch | None
    details: dict[str, Any]
    words: Callable[[TrainingProgress], str]

    def in_folder(self, folder: Path) -> Training:
        """Return the same training in another folder."""
        return dataclasses.replace(self, folder=folder)

    def run(self, report_status: Callable[[Status], None]) -> None:
        """Train on the devices of this process, with XLA if there is a GPU."""
        import tensorflow as tf

        self.train(report_status, jit_compile=bool(tf.config.list_logical_devices("GPU")))

    def train(
        self,
        report_status: Callable[[Status], None],
        *,
        jit_compile: bool,
        strategy: tf.distribute.Strategy | None = None,
        tensorboard: bool = False,
    ) -> keras.Model:
        """Train on chosen devices, see `training.train`; return the model."""
        return training.train(
            self.recipe,
            RunDir(self.folder),
            self.data(),
            strategy=strategy,
            init_from=self.init_from.load() if self.init_from else None,
            watch=self.watch,
            jit_compile=jit_compile,
            tensorboard=tensorboard,
            report=lambda progress: report_status(
                Status(self.words(progress), progress.seconds_left)
            ),
            verbose=0,
            details=self.details,
        )
