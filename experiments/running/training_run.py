"""Trains the model that flag values describe: shared by `train` and `table`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alp_repro import runs
from alp_repro.data import Images, load
from alp_repro.errors import InputError
from alp_repro.evaluation.published import SCALE as PUBLISHED
from alp_repro.training import TrainingProgress, Watch

from ..console.commands import command
from ..console.display import duration, status_callback
from ..flags import settings
from .evaluation_run import evaluation_set

if TYPE_CHECKING:
    import keras
    from absl import flags

    from alp_repro.tasks import Status
    from alp_repro.tasks.plans import ModelFile
    from alp_repro.tasks.training import Training

    from .devices import Devices

_WATCHED_IMAGES = 200


@functools.lru_cache(maxsize=1)
def training_set(dataset: str, data_dir: str | None) -> Images:
    """Return the training images; read once for all rows of a table."""
    return load.load_split(dataset, "train", data_dir=data_dir)


def lacks_initial_model(values: flags.FlagValues, run: runs.RunDir) -> bool:
    """Return whether the row is fine-tuned, but no model to start from is given."""
    return values.fine_tuned and not values.init_from and not run.finished


def train_row(
    values: flags.FlagValues,
    devices: Devices,
    *,
    tensorboard: bool = False,
    report_status: Callable[[Status], None] | None = None,
    details: dict[str, Any] | None = None,
) -> keras.Model:
    """Train, resume or load the model of --row.

    Progress is passed to `report_status`, or else displayed.
    """
    task = training_of(values, devices, details=details)
    with status_callback(task.name, report_status) as report_status:
        return task.train(
            report_status,
            jit_compile=devices.jit_compile,
            strategy=devices.strategy,
            tensorboard=tensorboard,
        )


def training_of(
    values: flags.FlagValues,
    devices: Devices,
    *,
    data: Callable[[], Images] | None = None,
    details: dict[str, Any] | None = None,
) -> Training:
    """Return the training of --row; by default, its data are read from disk."""
    from alp_repro.tasks.training import Training

    run = settings.run_dir(values)
    if (details or {}).get("scale") == PUBLISHED and not run.finished:
        check_revision(runs.code_revision())
    return Training(
        name=run.path.name,
        folder=run.path,
        data=data or functools.partial(training_set, values.dataset, values.data_dir),
        recipe=settings.recipe(values),
        init_from=initial_model(values, run),
        watch=watch_of(values),
        details={"device": devices.description, **(details or {})},
        words=training_progress,
    )


def check_revision(revision: str) -> None:
    """Refuse to train a published model with code that is not committed.

    Raises:
      InputError: the checkout has uncommitted changes.
    """
    if revision.endswith("+changes"):
        raise InputError(
            f"scale {PUBLISHED} trains with committed code only, but this checkout is {revision}: "
            "commit your changes first"
        )


def training_progress(progress: TrainingProgress) -> str:
    """Format the state of a training in a few words."""
    words = f"training, epoch {progress.epoch} of {progress.epochs}, loss {progress.loss:.4f}"
    if progress.images_per_second is None or progress.seconds_left is None:
        return words
    left = duration(progress.seconds_left)
    return f"{words}, {progress.images_per_second:,.0f} images/s, {left} left"


def watch_of(values: flags.FlagValues) -> Watch | None:
    """Return what --watch_every and --watch_attack measure on the first evaluation images."""
    if values.watch_every is None:
        return None
    attack = settings.watch_attack(values)
    data = evaluation_set(values.dataset, _WATCHED_IMAGES, values.data_dir)
    return Watch(data.images, data.labels, attack, values.watch_every)


def initial_model(values: flags.FlagValues, run: runs.RunDir) -> ModelFile | None:
    """Return the model of --init_from, unless the training is finished."""
    if lacks_initial_model(values, run):
        raise InputError(
            f"{values.row} is fine-tuned: expected --init_from=RUN_FOLDER_OR_KERAS_FILE, or a "
            f"model imported by {command('import_checkpoint')} with --run_dir={run.path}"
        )
    if not values.init_from or run.finished:
        return None
    path = Path(values.init_from)
    model = runs.load_model(path if path.suffix == ".keras" else runs.RunDir(path).model)
    from alp_repro.tasks.plans import ModelFile

    return ModelFile.of(model)
