"""What a training does besides its steps: saves, logs, warns, resumes."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro import files, runs
from alp_repro.attacks import Attack, attack_program, exact_bounds
from alp_repro.data.images import unit_scale
from alp_repro.errors import InputError
from alp_repro.model_copies import float32_copy, float32_model, logits_function
from alp_repro.training.model import ACCURACIES, LogitPairingModel
from alp_repro.training.recipe import Recipe


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends the training with the epoch and step at which the loss became NaN or infinite.

    What the last finished epoch saved is kept.
    """

    def __init__(self) -> None:
        """Starts at epoch 0."""
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises InputError on a loss that is not finite."""
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            raise InputError(
                f"the loss is {float(loss)} at epoch {self._epoch + 1}, step {batch + 1}: lower "
                "the learning rate or a penalty's weight; the last good checkpoint is kept"
            )


class WarnAtChance(keras.callbacks.Callback):
    """Says at once that an epoch ended with an accuracy of a model that has learned nothing.

    Logit squeezing can drive all logits to zero in the first epoch, where a training stays.
    """

    def __init__(self, num_classes: int) -> None:
        """Takes the number of classes, one over which is chance."""
        super().__init__()
        self._threshold = 1.5 / num_classes

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints a line if the epoch's best accuracy is near chance."""
        found = [logs[name] for name in ACCURACIES if name in logs] if logs else []
        if found and max(found) < self._threshold:
            print(
                f"epoch {epoch + 1}: training accuracy {max(found):.1%} is that of chance; the "
                "logits may have collapsed for good: another --seed may not",
                flush=True,
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Watch:
    """Test images on which a training's clean and adversarial accuracy are logged now and then.

    Attributes:
      images: uint8 or float [n, height, width, channels], attacked as one batch.
      labels: int [n].
      attack: one restart of it is run.
      every: epochs between two looks; the last epoch is always one.
    """

    images: np.ndarray
    labels: np.ndarray
    attack: Attack
    every: int


class LogTestAccuracy(keras.callbacks.Callback):
    """Adds `test_accuracy` and `test_adversarial_accuracy` to the logs of each epoch; NaN between.

    The authors' own training loop logs both.
    """

    def __init__(self, watch: Watch, recipe: Recipe) -> None:
        """Keeps the images on the [0, 1] scale."""
        super().__init__()
        self._images = unit_scale(watch.images)
        self._labels = np.asarray(watch.labels, np.int32)
        self._watch, self._recipe = watch, recipe
        self._float32: keras.Model | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the epochs that are due."""
        assert logs is not None
        due = (epoch + 1) % self._watch.every == 0 or epoch + 1 == self._recipe.epochs
        clean, adversarial = self._accuracies() if due else (np.nan, np.nan)
        logs |= {"test_accuracy": clean, "test_adversarial_accuracy": adversarial}

    def _accuracies(self) -> tuple[float, float]:
        model = self._classifier()
        attack, images = self._watch.attack, self._images
        count = len(images)
        program = attack_program(
            model, attack=attack, image_shape=images.shape[1:], batch_size=count,
            seed=self._recipe.seed,
        )  # fmt: skip
        outcome = program(
            images, self._labels, np.arange(count), np.zeros(count, np.int32),
            *exact_bounds(images, attack.eps),
        )  # fmt: skip
        logits = logits_function(model)(tf.constant(images)).numpy()
        clean = float(np.mean(np.argmax(logits, axis=1) == self._labels))
        return clean, float(1.0 - np.mean(outcome.broken))

    def _classifier(self) -> keras.Model:
        """The classifier with its weights of now, in float32."""
        classifier = self.model.classifier
        if self._float32 is None:
            self._float32 = float32_model(classifier)
        elif self._float32 is not classifier:
            self._float32.set_weights(classifier.get_weights())
        return self._float32


def save_classifier(path: Path, classifier: keras.Model, recipe: Recipe) -> None:
    """Writes a trained classifier as a float32 model, rounded where the recipe wants it so."""
    if recipe.round_weights or recipe.dtype != "float32":
        classifier = float32_copy(classifier)
    if recipe.round_weights:
        classifier.set_weights(
            [tf.cast(tf.cast(w, tf.bfloat16), tf.float32) for w in classifier.get_weights()]
        )
    runs.save_model(path, classifier)


class SaveRawWeights(keras.callbacks.Callback):
    """Saves the classifier after the last epoch, before Keras puts averages in its place."""

    def __init__(self, run: runs.RunDir, recipe: Recipe) -> None:
        """Saves to the run's folder."""
        super().__init__()
        self._run, self._recipe = run, recipe

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves after the last one."""
        if epoch + 1 == self._recipe.epochs:
            save_classifier(self._run.model, self.model.classifier, self._recipe)


class Backup(keras.callbacks.Callback):
    """The whole state of an unfinished training after each epoch, in one file that is replaced.

    Keras' BackupAndRestore writes weights and epoch in place, one after the other: a process that
    is killed there leaves a state that cannot be read, or weights that belong to another epoch.
    """

    def __init__(self, run: runs.RunDir) -> None:
        """Keeps the state in the run's backup folder."""
        super().__init__()
        self._path = run.backup / "latest.weights.h5"

    def restore(self, model: LogitPairingModel, *, steps_per_epoch: int) -> int:
        """Loads what an earlier training left into a compiled model; returns the epochs done.

        Raises:
          InputError: the file is damaged.
        """
        if not self._path.exists():
            return 0
        try:
            model.load_weights(self._path)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self._path} is damaged ({str(error).strip().splitlines()[0]}): remove it to "
                "train from the beginning"
            ) from error
        return int(model.optimizer.iterations.numpy()) // steps_per_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves weights, optimizer and averages."""
        files.write_atomically(self._path, self.model.save_weights)

    def remove(self) -> None:
        """Removes the state of a training that is finished."""
        shutil.rmtree(self._path.parent, ignore_errors=True)


def learning_rate_at(recipe: Recipe, epoch: int) -> float:
    """The recipe's rate, divided by 10 at each of its drops (epochs counted from 0)."""
    return recipe.learning_rate * 0.1 ** sum(epoch >= drop for drop in recipe.learning_rate_drops)
