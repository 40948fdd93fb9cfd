"""Evaluation: a model, images and attacks in; adversarial accuracies out, kept on disk if asked."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro import runs
from alp_repro.evaluation import restarts
from alp_repro.attacks.settings import Attack, logits_function
from alp_repro.errors import InputError
from alp_repro.evaluation.restarts import AttackRecord, Progress

DEFAULT_BATCH = 200


def evaluate(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: Attack,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH,
    folder: str | Path | None = None,
    indices: np.ndarray | None = None,
    record_losses: bool = False,
    save_adversarial: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    jit_compile: bool | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    details: dict[str, Any] | None = None,
) -> AttackRecord:
    """Attacks any Keras model with restarts, until each image is broken or the budget is spent.

    Args:
      model: maps float32 images in [0, 1] to logits (no softmax).
      images: float [n, height, width, channels] in [0, 1].
      labels: int [n].
      attack: what to do; sizes on the [0, 1] scale.
      seed: of the random starts and targets.
      batch_size: work items in a batch; more is faster on a GPU. A result depends on it only as far
        as float32 kernels do.
      folder: where the result is kept, under `attack_name`. A result that is there is not computed
        again, an unfinished one is gone on with, more restarts are added to it.
      indices: int [n], places of the images in their data set, for the record.
      record_losses: note the loss after every restart of every image, broken ones too.
      save_adversarial: keep the images that broke.
      strategy: of `tf.distribute`, for several GPUs.
      jit_compile: XLA; None: on when a GPU is there.
      report: called after each batch.
      details: further provenance for the result.

    Raises:
      InputError: images or labels of the wrong shape, type or range; outputs that are
        probabilities; a result in `folder` that belongs to something else or is being worked on.
    """
    images, labels = _checked(model, images, labels)
    _check_numbers(seed=seed, batch_size=batch_size, indices=indices, num_images=len(labels))
    settings = _settings(model, images, labels, attack, seed, batch_size)
    settings |= {"losses": record_losses, "adversarial": save_adversarial}
    if jit_compile is None:
        jit_compile = bool(tf.config.list_physical_devices("GPU"))

    def run(record: AttackRecord, save: Callable[[AttackRecord], None]) -> AttackRecord:
        return restarts.attack_with_restarts(
            model, images, record, attack=attack, seed=seed, batch_size=batch_size,
            strategy=strategy, jit_compile=jit_compile, save=save, report=report,
        )  # fmt: skip

    def fresh() -> AttackRecord:
        return restarts.new_record(
            labels=labels,
            indices=np.arange(len(labels)) if indices is None else indices,
            clean_predictions=predictions(
                restarts.float32_model(model), images, batch_size=batch_size
            ),
            settings=settings,
            record_losses=record_losses,
            image_shape=images.shape[1:] if save_adversarial else None,
        )

    if folder is None:
        return run(fresh(), lambda record: None)
    return _on_disk(
        Path(folder) / attack_name(settings), settings, attack, fresh, run, details or {}
    )


def predictions(model: keras.Model, images: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Predicted classes, int32 [n], in batches of one shape."""
    logits = _compiled_logits(model)
    found = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        short = batch_size - len(batch)
        padded = np.pad(batch, ((0, short), (0, 0), (0, 0), (0, 0)))
        found.append(np.argmax(logits(tf.constant(padded)).numpy()[: len(batch)], axis=1))
    return np.concatenate(found).astype(np.int32)


@functools.lru_cache(maxsize=2)
def _compiled_logits(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Traced once for all attacks on a model."""
    return tf.function(logits_function(model))


def attack_name(settings: dict[str, Any]) -> str:
    """File name of a result: what a reader looks for, and eight digits of all that matters.

    Restarts are left out: a result grows with them.
    """
    attack = settings["attack"]
    parts = [
        attack["method"],
        f"eps{attack['eps'] * 255:g}",
        f"step{attack['eps_iter'] * 255:g}",
        f"n{attack['nb_iter']}",
        *([attack["loss"]] if attack["loss"] != "cross_entropy" else []),
        *([attack["step_schedule"]] if attack["step_schedule"] != "constant" else []),
        *([f"target-{attack['target']}"] if attack["target"] != "none" else []),
        *([attack["dtype"]] if attack["dtype"] != "float32" else []),
        f"images{settings['num_images']}",
        *(["losses"] if settings.get("losses") else []),
    ]
    # The model is left out: a result of another model at this place is to be noticed.
    identity = {key: value for key, value in settings.items() if key != "model"}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join(parts) + f"_{digest}.npz"


def find_record(
    run: runs.RunDir,
    *,
    attack: Attack,
    num_images: int,
    seed: int = 0,
    record_losses: bool = False,
) -> AttackRecord | None:
    """The result of this attack on the run's model, as far as it has come; None: there is none.

    Raises:
      InputError: a result there is damaged.
    """
    if not (run.finished and run.attacks.exists()):
        return None
    wanted = runs.plain(
        {
            "attack": _described(attack),
            "num_images": num_images,
            "seed": seed,
            "losses": record_losses,
            "model": runs.read_json(run.recipe)["weights"],
        }
    )
    # Names with a dot are what a process that was killed while writing left behind.
    for path in sorted(run.attacks.glob("[!.]*.npz")):
        record = restarts.load_record(path)
        if {key: record.settings.get(key) for key in wanted} == wanted:
            return record
    return None


def _on_disk(
    path: Path,
    settings: dict[str, Any],
    attack: Attack,
    fresh: Callable[[], AttackRecord],
    run: Callable[[AttackRecord, Callable[[AttackRecord], None]], AttackRecord],
    details: dict[str, Any],
) -> AttackRecord:
    """Loads, goes on with, or begins the result at `path`; one process at a time works on it."""
    with runs.exclusive(path):
        record = _matching(path, settings) if path.exists() else fresh()
        if record.complete_to(attack.restarts):
            return record
        session = {**runs.provenance(), **details, "restarts": attack.restarts}
        earlier, started = record.sessions, time.monotonic()

        def save(current: AttackRecord) -> None:
            spent = {"seconds": round(time.monotonic() - started, 1)}
            restarts.save_record(
                path, dataclasses.replace(current, sessions=[*earlier, {**session, **spent}])
            )

        run(record, save)
        return restarts.load_record(path)


def _matching(path: Path, settings: dict[str, Any]) -> AttackRecord:
    record = restarts.load_record(path)
    for key, value in runs.plain(settings).items():
        if record.settings.get(key) != value:
            what = {"model": "another model (its weights differ)"}.get(key, f"another {key}")
            raise InputError(
                f"{path} is the result of {what}: {record.settings.get(key)!r} there, {value!r} "
                "here; move it away to have it computed again"
            )
    return record


def _settings(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    attack: Attack,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes())
    digest.update(labels.astype(np.int32).tobytes())
    return {
        "attack": _described(attack),
        "seed": seed,
        "batch_size": batch_size,
        "num_images": len(labels),
        "images": digest.hexdigest()[:16],
        "model": runs.weights_hash(model),
    }


def _described(attack: Attack) -> dict[str, Any]:
    """An attack without its restarts, which a result can be given more of."""
    described = dataclasses.asdict(attack)
    del described["restarts"]
    return described


def _checked(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The door: images and labels as the engine takes them."""
    if not isinstance(model, keras.Model):
        raise InputError(f"the model is a {type(model).__name__}: a keras.Model is needed")
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or len(images) == 0:
        raise InputError(
            f"images of shape {images.shape}: [n, height, width, channels] with n > 0 is needed"
        )
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images of type {images.dtype}: floats in [0, 1] (divide by 255)")
    images = images.astype(np.float32)
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise InputError(
            f"images in [{images.min():g}, {images.max():g}]: values in [0, 1] are needed"
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels of shape {labels.shape} and type {labels.dtype}: {len(images)} integers needed"
        )
    try:
        outputs = model(images[:1], training=False)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise InputError(
            f"the model does not take images of shape {images.shape[1:]}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if len(getattr(outputs, "shape", ())) != 2:
        what = getattr(outputs, "shape", type(outputs).__name__)
        raise InputError(f"the model gives {what}: logits [n, classes] are needed")
    probabilities = np.asarray(outputs, np.float32)
    if not np.isfinite(probabilities).all():
        raise InputError("the model's logits are not finite: its weights are damaged")
    if probabilities.min() >= 0 and abs(probabilities.sum() - 1) < 1e-3:
        raise InputError(
            "the model's outputs are probabilities: give it without its softmax (logits), which "
            "would hide gradients from the attack"
        )
    classes = outputs.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels in [{labels.min()}, {labels.max()}]: the model has classes 0 to {classes - 1}"
        )
    return images, labels.astype(np.int32)


def _check_numbers(
    *, seed: int, batch_size: int, indices: np.ndarray | None, num_images: int
) -> None:
    if not 0 <= seed < 2**31:
        raise InputError(f"seed {seed}: a number in [0, 2^31) is needed")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: a count of 1 or more is needed")
    if indices is not None and np.shape(indices) != (num_images,):
        raise InputError(f"indices of shape {np.shape(indices)}: one for each image is needed")
