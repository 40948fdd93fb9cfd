"""Training with logit pairing, into a run folder."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from alp_repro import files, runs
from alp_repro.data.images import Images
from alp_repro.errors import InputError
from alp_repro.training.backup import Backup
from alp_repro.training.callbacks import (
    LogTestAccuracy,
    Report,
    SaveRawWeights,
    StopAtStep,
    StopWhenNotFinite,
    TrainingLog,
    WarnAtChance,
    Watch,
    is_at_chance,
    learning_rate_at,
    save_classifier,
)
from alp_repro.training.input_check import checked_training_set
from alp_repro.training.logit_pairing import LogitPairing
from alp_repro.training.model import compiled_model
from alp_repro.training.order import EpochOrder, first_images
from alp_repro.training.ownership import Owner, check_owner, finished_model
from alp_repro.training.progress import TrainingProgress
from alp_repro.training.recipe import Recipe
from alp_repro.training.replicas import is_chief, spans_machines
from alp_repro.validation.arguments import (
    checked_bool,
    checked_details,
    checked_function,
    checked_instance,
    checked_strategy,
)

ENOUGH_SECONDS = 10.0


def train(  # noqa: C901, PLR0913 - settings, each by its name
    recipe: Recipe,
    run: runs.RunDir,
    data: Images,
    *,
    strategy: tf.distribute.Strategy | None = None,
    init_from: keras.Model | None = None,
    watch: Watch | None = None,
    jit_compile: bool = False,
    tensorboard: bool = False,
    report: Callable[[TrainingProgress], None] | None = None,
    verbose: int | str = "auto",
    details: dict[str, Any] | None = None,
) -> keras.Model:
    """Train the model of a recipe into a run folder, or resume an interrupted training.

    The model of a finished run is returned without training. Progress is saved at the end of each
    epoch; an unfinished training may get more epochs.

    Args:
      recipe: of the training.
      run: its folder.
      data: the training set; its first `recipe.train_images` are used.
      strategy: a `tf.distribute.Strategy`; the batch size is the global one. CLP's pairs and batch
        statistics stay within a replica. With several machines, which must share the run folder,
        only the chief writes.
      init_from: a model of the same architecture to continue from, with its own pixel scale.
      watch: test images whose accuracies are logged with those of the training.
      jit_compile: see `compiled_model`.
      tensorboard: write TensorBoard's event files to the run folder, in tensorboard/.
      report: called after each step and each epoch.
      verbose: Keras' progress bar.
      details: further provenance (flags, scale, data source).

    Raises:
      InputError: the folder belongs to another recipe or cannot be written to, the data set is too
        small, the batch does not divide over the replicas, the loss is not finite, another process
        trains the run, the model in it is not the one that was trained, or TensorBoard is missing.

    Examples:
      >>> import pathlib
      >>> from alp_repro.data.load import load_split
      >>> from alp_repro.runs import RunDir
      >>> recipe = alp_repro.Recipe(
      ...     dataset="mnist", model="lenet", model_width=4, epochs=5, batch_size=9, train_images=99
      ... )
      >>> run = RunDir(pathlib.Path("runs/mine"))
      >>> model = alp_repro.train(recipe, run, load_split("mnist", "train", limit=99), verbose=0)
      >>> run.finished
      True
    """
    recipe = checked_instance(recipe, Recipe, name="recipe")
    run = checked_instance(run, runs.RunDir, name="run")
    files.expanded(run.path)  # raises on an invalid path
    data = checked_training_set(data, recipe)
    if init_from is not None:
        checked_instance(init_from, keras.Model, name="init_from")
    if watch is not None:
        checked_instance(watch, Watch, name="watch")
    if report is not None:
        checked_function(report, name="report")
    jit_compile = checked_bool(jit_compile, name="jit_compile")
    tensorboard = checked_bool(tensorboard, name="tensorboard")
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError("tensorboard=True: TensorBoard is missing: pip install tensorboard")
    details = checked_details(details)
    strategy = checked_strategy(strategy) or tf.distribute.get_strategy()
    if recipe.attack is not None and recipe.attack.dtype != "float32" and spans_machines(strategy):
        raise InputError(
            f"training attack dtype={recipe.attack.dtype} works on one machine only, since "
            "TensorFlow cannot send such weights to others: use float32"
        )
    owner = Owner.of(recipe, init_from)
    if run.finished:
        return finished_model(run, owner)
    chief = is_chief(strategy)
    with run.exclusive() if chief else contextlib.nullcontext():
        if run.finished:  # by a process that held the lock until now
            return finished_model(run, owner)
        check_owner(run, owner)
        replicas = strategy.num_replicas_in_sync
        order = EpochOrder(first_images(data, recipe.train_images), recipe, replicas=replicas)
        with strategy.scope():
            model = compiled_model(
                recipe,
                jit_compile=jit_compile,
                init_from=init_from,
                steps=steps_of(recipe, steps_per_epoch=order.steps),
            )
        backup = Backup(run, owner)
        done = backup.restore(model, steps_per_epoch=order.steps)
        epochs = epochs_of(recipe, steps_per_epoch=order.steps)
        log = TrainingLog(run.log, done=done)
        if chief and not runs.is_stored(run.settings, owner.to_json()):
            files.write_json(run.settings, owner.to_json())  # only after all checks have passed
        callbacks = [order, *_callbacks(recipe, model)]
        if chief:
            if watch is not None:
                callbacks.append(LogTestAccuracy(watch, epochs=epochs, seed=recipe.seed))
            callbacks += [SaveRawWeights(run, recipe, epochs=epochs), log, backup]
            if tensorboard:
                callbacks.append(keras.callbacks.TensorBoard(str(run.path / "tensorboard")))
        if report is not None:
            callbacks.append(Report(report, recipe, epochs=epochs, steps=order.steps))
        spread = strategy.distribute_datasets_from_function
        model.fit(
            spread(order.shares) if replicas > 1 else order.dataset(),
            steps_per_epoch=order.steps if replicas > 1 else None,
            epochs=epochs,
            initial_epoch=done,
            callbacks=callbacks,
            verbose=verbose,
            shuffle=False,
        )
        if not chief:
            return model.classifier
        if recipe.average_decay:
            save_classifier(run.averages, model.classifier, recipe)
        trained = runs.load_model(run.model)
        description = {
            "recipe": recipe.to_json(),
            "weights": runs.weights_hash(trained),
            "init_from": owner.init_from,
            "at_chance": is_at_chance(log.rows.get(epochs - 1, {}), trained.output_shape[-1]),
            "sessions": backup.sessions,
            "data_source": data.source,
        }
        files.write_json(run.recipe, {**description, **runs.provenance(), **details})
        backup.remove()
        return trained


def _callbacks(recipe: Recipe, model: LogitPairing) -> list[keras.callbacks.Callback]:
    """Return the callbacks of every process of a training."""
    callbacks = [StopWhenNotFinite(), WarnAtChance(model.classifier.output_shape[-1])]
    if recipe.cyclic_peak is None:  # a cyclic rate is the optimizer's own
        callbacks.append(
            keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate_at(recipe, epoch))
        )
    return callbacks if recipe.max_steps is None else [*callbacks, StopAtStep(recipe.max_steps)]


def epochs_of(recipe: Recipe, *, steps_per_epoch: int) -> int:
    """Return the number of epochs: the recipe's, or fewer if `max_steps` ends the training."""
    if recipe.max_steps is None:
        return recipe.epochs
    return min(recipe.epochs, -(-recipe.max_steps // steps_per_epoch))


def steps_of(recipe: Recipe, *, steps_per_epoch: int) -> int:
    """Return the number of steps of a whole training."""
    steps = recipe.epochs * steps_per_epoch
    return min(steps, recipe.max_steps or steps)


def estimate_seconds(
    recipe: Recipe, data: Images, *, steps: int = 5, jit_compile: bool = False
) -> float:
    """Estimate the duration of a training on this machine from a few timed steps."""
    model = compiled_model(recipe)
    batch = min(recipe.batch_size, len(data.labels))
    batch -= batch % recipe.virtual_replicas
    images, labels = tf.constant(data.images[:batch]), tf.constant(data.labels[:batch], tf.int32)
    step = tf.function(
        lambda: model.train_step((images, labels)), jit_compile=jit_compile, autograph=False
    )
    step()
    started = time.monotonic()
    seconds, done = 0.0, 0
    while done < steps and seconds < ENOUGH_SECONDS:
        step()["loss"].numpy()
        seconds, done = time.monotonic() - started, done + 1
    per_step = seconds / done
    count = recipe.train_images or len(data.labels)
    return per_step * steps_of(recipe, steps_per_epoch=-(-count // recipe.batch_size))
