"""Trains the row that flag values describe: shared by `train` and `table`."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import keras
from absl import flags

from alp_repro import datasets, runs, training
from alp_repro.datasets import Images
from experiments import settings
from experiments.devices import Devices


@functools.lru_cache(maxsize=1)
def training_set(dataset: str, data_dir: str | None) -> Images:
    """The training images; read once for all rows of a table."""
    return datasets.load_split(dataset, "train", data_dir=data_dir)


def train_row(
    values: flags.FlagValues,
    devices: Devices,
    *,
    tensorboard: bool = False,
    details: dict[str, Any] | None = None,
) -> keras.Model:
    """Trains, resumes or loads the model of --row, as its flags say."""
    recipe, run = settings.recipe(values), settings.run_dir(values)
    init_from = None
    if values.init_from:
        path = Path(values.init_from)
        init_from = runs.load_model(path if path.suffix == ".keras" else runs.RunDir(path).model)
    return training.train(
        recipe,
        run,
        training_set(values.dataset, values.data_dir),
        strategy=devices.strategy,
        init_from=init_from,
        jit_compile=devices.jit_compile,
        tensorboard=tensorboard,
        verbose=1 if sys.stdout.isatty() else 2,
        details={"device": devices.description, **(details or {})},
    )
