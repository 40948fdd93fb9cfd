"""Training with logit pairing, into a run folder."""

from __future__ import annotations

import time
from typing import Any

import keras
import tensorflow as tf

from alp_repro import files, runs
from alp_repro.data.images import Images
from alp_repro.errors import InputError
from alp_repro.training.callbacks import (
    Backup,
    LogTestAccuracy,
    SaveRawWeights,
    StopWhenNotFinite,
    WarnAtChance,
    Watch,
    learning_rate_at,
    save_classifier,
)
from alp_repro.training.model import compiled_model
from alp_repro.training.order import EpochOrder, first_images
from alp_repro.training.recipe import Recipe
from alp_repro.training.replicas import is_chief, spans_machines

ENOUGH_SECONDS = 10.0


def train(
    recipe: Recipe,
    run: runs.RunDir,
    data: Images,
    *,
    strategy: tf.distribute.Strategy | None = None,
    init_from: keras.Model | None = None,
    watch: Watch | None = None,
    jit_compile: bool = False,
    tensorboard: bool = False,
    verbose: int | str = "auto",
    details: dict[str, Any] | None = None,
) -> keras.Model:
    """Trains the model of a recipe into a run folder, or goes on where an earlier call was stopped.

    A finished run is returned as it is. Progress is kept at each epoch's end.

    Args:
      recipe: what to train.
      run: its folder.
      data: the training set; its first `recipe.train_images` are used.
      strategy: of `tf.distribute`; the batch size is the global one. Pairs of CLP are formed, and
        batch statistics taken, within a replica. Of several machines, which must share the run
        folder, only the chief writes.
      init_from: a model of the same architecture to go on from, with its own scale of pixels.
      watch: test images whose accuracies are logged beside those of the training.
      jit_compile: see `compiled_model`.
      tensorboard: writes event files to the run folder.
      verbose: Keras' progress bar.
      details: further provenance (flags, scale, data source).

    Raises:
      InputError: the folder belongs to another recipe or cannot be written to, the data set is too
        small, the batch does not divide over the replicas, or the loss is not finite.
    """
    strategy = strategy or tf.distribute.get_strategy()
    chief = is_chief(strategy)
    if recipe.attack is not None and recipe.attack.dtype != "float32" and spans_machines(strategy):
        raise InputError(
            f"a training attack in {recipe.attack.dtype} works on one machine only: TensorFlow "
            "passes no such weights between machines; use float32"
        )
    settings = _settings(recipe, init_from)
    _check_owner(run, settings)
    if run.finished:
        return runs.load_model(run.model)
    data = first_images(data, recipe.train_images)
    order = EpochOrder(data, recipe, replicas=strategy.num_replicas_in_sync)
    several = strategy.num_replicas_in_sync > 1
    with strategy.scope():
        model = compiled_model(recipe, jit_compile=jit_compile, init_from=init_from)
    if chief and not run.settings.exists():
        files.write_json(run.settings, settings)  # now that nothing more can be refused
    backup = Backup(run)
    callbacks = [
        order,
        StopWhenNotFinite(),
        WarnAtChance(model.classifier.output_shape[-1]),
        keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate_at(recipe, epoch)),
    ]
    if watch is not None and chief:
        callbacks.append(LogTestAccuracy(watch, recipe))  # before the log, which it adds to
    if chief:
        log = keras.callbacks.CSVLogger(str(run.log), append=True)
        callbacks += [SaveRawWeights(run, recipe), log, backup]
    if tensorboard and chief:
        callbacks.append(keras.callbacks.TensorBoard(str(run.path / "tensorboard")))
    started = time.monotonic()
    model.fit(
        strategy.distribute_datasets_from_function(order.shares) if several else order.dataset(),
        steps_per_epoch=order.steps if several else None, epochs=recipe.epochs,
        initial_epoch=backup.restore(model, steps_per_epoch=order.steps),
        callbacks=callbacks, verbose=verbose, shuffle=False,
    )  # fmt: skip
    if not chief:
        return model.classifier
    if recipe.average_decay:
        save_classifier(run.averages, model.classifier, recipe)
    trained = runs.load_model(run.model)
    files.write_json(run.recipe, {
        "recipe": recipe.to_json(),
        "weights": runs.weights_hash(trained),
        "seconds_of_last_session": round(time.monotonic() - started, 1),
        "data_source": data.source,
        **runs.provenance(),
        **(details or {}),
    })  # fmt: skip
    backup.remove()
    return trained


def estimate_seconds(recipe: Recipe, data: Images, *, steps: int = 5) -> float:
    """Duration of a whole training on this machine, from a few timed steps; fewer if they last."""
    model = compiled_model(recipe)
    batch = min(recipe.batch_size, len(data.labels))
    images, labels = tf.constant(data.images[:batch]), tf.constant(data.labels[:batch], tf.int32)
    step = tf.function(lambda: model.train_step((images, labels)))
    step()
    started = time.monotonic()
    seconds, done = 0.0, 0
    while done < steps and seconds < ENOUGH_SECONDS:
        step()["loss"].numpy()
        seconds, done = time.monotonic() - started, done + 1
    per_step = seconds / done
    count = recipe.train_images or len(data.labels)
    return per_step * -(-count // recipe.batch_size) * recipe.epochs


def _settings(recipe: Recipe, init_from: keras.Model | None) -> dict[str, Any]:
    settings: dict[str, Any] = files.plain(recipe.to_json())
    if init_from is not None:
        settings["init_from"] = runs.weights_hash(init_from)
    return settings


def _check_owner(run: runs.RunDir, wanted: dict[str, Any]) -> None:
    """Makes sure that a folder can be written to and is nobody else's."""
    run.make()
    if not run.settings.exists():
        return
    found = files.read_json(run.settings)
    if isinstance(found, dict):
        # Settings of before there was a choice.
        found = {"dtype": "float32", "round_weights": False, **found}
    if isinstance(found, dict) and "init_from" not in wanted and run.finished:
        found.pop("init_from", None)  # nothing starts from it any more
    if found != wanted:
        raise InputError(
            f"{run.path} holds a model with other settings ({_differences(found, wanted)}): "
            "name another --row or --runs_dir, or remove the folder"
        )


def _differences(found: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "unreadable"
    changed = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    return ", ".join(
        f"{key} {found.get(key)!r} there, {wanted.get(key)!r} asked for" for key in changed[:3]
    )
