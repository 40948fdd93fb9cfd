"""Attacks a run's model as flag values describe: shared by `evaluate` and `table`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alp_repro import evaluation, runs
from alp_repro.data import Images, dataset_spec, load, prepare, store
from alp_repro.evaluation.restarts import Executor, in_this_process
from alp_repro.tasks import Status

from ..console.display import attack_progress, duration, status_callback
from ..flags import settings

if TYPE_CHECKING:
    import keras
    from absl import flags

    from alp_repro.attacks import Attack, Ensemble
    from alp_repro.data.load import ImageCount
    from alp_repro.evaluation import AttackRecord, Progress

    from .devices import Devices


@functools.lru_cache(maxsize=2)
def evaluation_set(dataset: str, num_images: ImageCount, data_dir: str | None) -> Images:
    """Return the paper's evaluation images; read once for all rows of a table."""
    return load.load_evaluation_set(dataset, num_images=num_images, data_dir=data_dir)


def image_count(values: flags.FlagValues) -> int:
    """Return the number of evaluation images of --num_images.

    Reading results prepares no data set: if it is not prepared, the official split is counted.
    """
    if values.num_images != "all":
        return values.num_images
    if not _is_prepared(values.dataset, values.data_dir):
        return dataset_spec(values.dataset).test_size
    return load.evaluation_split_size(values.dataset, data_dir=values.data_dir)


@functools.lru_cache(maxsize=8)
def evaluation_digest(
    dataset: str, data_dir: str | None, whole_split: bool, num_images: int
) -> str | None:
    """Return the digest of evaluation images; None if the data set is not prepared.

    Args:
      dataset, data_dir: the data set, and its location.
      whole_split: return the digest of the whole split if it has `num_images` images.
      num_images: number of images.
    """
    if not _is_prepared(dataset, data_dir):
        return None
    whole = whole_split and load.evaluation_split_size(dataset, data_dir=data_dir) == num_images
    return load.evaluation_digest(dataset, "all" if whole else num_images, data_dir=data_dir)


def _is_prepared(dataset: str, data_dir: str | None) -> bool:
    return store.is_prepared(
        prepare.prepared_folder(dataset_spec(dataset), store.resolve_data_dir(data_dir))
    )


def evaluator(values: flags.FlagValues, devices: Devices) -> Callable[..., AttackRecord]:
    """Return `evaluate` with the arguments that the flags and the devices decide."""
    return functools.partial(
        evaluation.evaluate,
        seed=values.seed,
        batch_size=settings.eval_batch_size(values, gpu=devices.gpu),
        save_adversarial=values.save_adversarial,
        strategy=devices.strategy,
        jit_compile=devices.jit_compile,
    )


def attack_run(
    values: flags.FlagValues,
    run: runs.RunDir,
    model: keras.Model,
    attack: Attack | Ensemble,
    devices: Devices,
    *,
    data: Images | None = None,
    record_losses: bool = False,
    details: dict[str, Any] | None = None,
    report_status: Callable[[Status], None] | None = None,
    executor: Executor = in_this_process,
) -> AttackRecord:
    """Return the result of one attack on a run's model; only what is not on disk is computed.

    The images are the paper's evaluation images unless others are given; losses are recorded if
    the values or the caller ask for it. Progress is passed to `report_status`, or else displayed;
    `executor` is that of `evaluate`.
    """
    data = data or evaluation_set(values.dataset, values.num_images, values.data_dir)
    with status_callback(run.path.name, report_status) as report_status:
        return evaluator(values, devices)(
            model,
            data.unit_scale,
            data.labels,
            attack=attack,
            folder=run.attacks,
            indices=data.indices,
            record_losses=record_losses or values.record_losses,
            report=lambda progress: report_status(_status(attack, progress)),
            executor=executor,
            details={
                "device": devices.description,
                "data_source": data.source,
                "flags": values.flags_into_string().split(),
                **(details or {}),
            },
        )


def _status(attack: Attack | Ensemble, progress: Progress) -> Status:
    return Status(
        f"{attack}, {attack_progress(progress)}, "
        f"{progress.gradients_per_second:,.0f} gradients/s, "
        f"at most {duration(progress.seconds_left)} left",
        progress.seconds_left,
    )
