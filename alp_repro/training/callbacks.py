"""Keras callbacks of a training: saving, logging, warnings and early stops."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro import files, runs
from alp_repro.attacks import Execution
from alp_repro.attacks.batches import work_items
from alp_repro.attacks.programs import attack_program
from alp_repro.data.images import unit_scale
from alp_repro.errors import InputError
from alp_repro.models.copies import float32_copy, float32_model, logits_function
from alp_repro.training.log import read_rows
from alp_repro.training.logit_pairing import ACCURACIES
from alp_repro.training.progress import TrainingProgress, Watch
from alp_repro.training.recipe import Recipe


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends the training with an error when the loss becomes NaN or infinite.

    The state that the last finished epoch saved is kept.
    """

    def __init__(self) -> None:
        """Start at epoch 0."""
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Store the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raise InputError if the loss is not finite."""
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            raise InputError(
                f"the loss is {float(loss)} at epoch {self._epoch + 1}, step {batch + 1}: lower "
                "the learning rate or a penalty's weight; the last checkpoint is kept"
            )


class WarnAtChance(keras.callbacks.Callback):
    """Prints a warning when an epoch ends with an accuracy of chance.

    Logit squeezing can drive all logits to zero in the first epoch, and a training stays there.
    """

    def __init__(self, num_classes: int) -> None:
        """Store the number of classes; the accuracy of chance is one over it."""
        super().__init__()
        self._num_classes = num_classes

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Print a line if the epoch's best accuracy is near chance."""
        if is_at_chance(logs or {}, self._num_classes):
            print(
                f"epoch {epoch + 1}: training accuracy {_best_accuracy(logs or {}):.1%} is at "
                "chance level; the logits may have collapsed for good: try another seed",
                flush=True,
            )


def is_at_chance(logs: Mapping[str, Any], num_classes: int) -> bool:
    """Return whether an epoch's best accuracy is below one and a half times that of chance."""
    best = _best_accuracy(logs)
    return best is not None and best < 1.5 / num_classes


def _best_accuracy(logs: Mapping[str, Any]) -> float | None:
    return max((float(logs[name]) for name in ACCURACIES if name in logs), default=None)


class StopAtStep(keras.callbacks.Callback):
    """Ends the training, and its last epoch, after a number of optimizer steps."""

    def __init__(self, max_steps: int) -> None:
        """Store the number of steps of the whole training."""
        super().__init__()
        self._max_steps, self._done = max_steps, 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Count from the steps that are already done."""
        self._done = int(self.model.optimizer.iterations.numpy())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop after the last step."""
        self._done += 1
        if self._done >= self._max_steps:
            self.model.stop_training = True


class LogTestAccuracy(keras.callbacks.Callback):
    """Adds `test_accuracy` and `test_adversarial_accuracy` to the logs, NaN in epochs not due.

    The authors' own training loop logs both.
    """

    def __init__(self, watch: Watch, *, epochs: int, seed: int) -> None:
        """Store the images on the [0, 1] scale; the last of `epochs` is always due."""
        super().__init__()
        self._images = unit_scale(watch.images)
        self._labels = np.asarray(watch.labels, np.int32)
        self._watch, self._epochs, self._seed = watch, epochs, seed
        self._float32: keras.Model | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compute the accuracies after an epoch that is due."""
        assert logs is not None
        due = (epoch + 1) % self._watch.every == 0 or epoch + 1 == self._epochs
        clean, adversarial = self._accuracies() if due else (np.nan, np.nan)
        logs |= {"test_accuracy": clean, "test_adversarial_accuracy": adversarial}

    def _accuracies(self) -> tuple[float, float]:
        model = self._classifier()
        attack, images = self._watch.attack, self._images
        count = len(images)
        program = attack_program(
            model,
            attack=attack,
            image_shape=images.shape[1:],
            seed=self._seed,
            execution=Execution(batch_size=count),
        )
        every, first = np.arange(count), np.zeros(count, np.int32)
        outcome = program(work_items(images, self._labels, every, first, eps=attack.eps))
        logits = logits_function(model)(tf.constant(images)).numpy()
        clean = float(np.mean(np.argmax(logits, axis=1) == self._labels))
        return clean, float(1.0 - np.mean(outcome.broken))

    def _classifier(self) -> keras.Model:
        """Return the classifier with its current weights, in float32."""
        classifier = self.model.classifier
        if self._float32 is None:
            self._float32 = float32_model(classifier)
        elif self._float32 is not classifier:
            self._float32.set_weights(classifier.get_weights())
        return self._float32


def save_classifier(path: Path, classifier: keras.Model, recipe: Recipe) -> None:
    """Save a trained classifier as a float32 model, rounded if the recipe says so."""
    if recipe.round_weights or recipe.dtype != "float32":
        classifier = float32_copy(classifier)
    if recipe.round_weights:
        classifier.set_weights(
            [tf.cast(tf.cast(w, tf.bfloat16), tf.float32) for w in classifier.get_weights()]
        )
    runs.save_model(path, classifier)


class SaveRawWeights(keras.callbacks.Callback):
    """Saves the classifier after the last epoch, before Keras puts averages in its place."""

    def __init__(self, run: runs.RunDir, recipe: Recipe, *, epochs: int) -> None:
        """Save to the run's folder after the last of `epochs`."""
        super().__init__()
        self._run, self._recipe, self._epochs = run, recipe, epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save after the last epoch."""
        if epoch + 1 == self._epochs:
            save_classifier(self._run.model, self.model.classifier, self._recipe)


def learning_rate_at(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0: divided by 10 at each drop."""
    return recipe.learning_rate * 0.1 ** sum(epoch >= drop for drop in recipe.learning_rate_drops)


class TrainingLog(keras.callbacks.Callback):
    """Losses and accuracies by epoch, in a file that is replaced as a whole after each epoch.

    Keras' CSVLogger appends: a full disk leaves half a line, and an epoch that was run twice leaves
    two. Validation columns, which it adds even to trainings without validation, are dropped.
    """

    def __init__(self, path: Path, *, done: int) -> None:
        """Keep the file's lines of the epochs that are `done`.

        Raises:
          InputError: the file is not a training log.
        """
        super().__init__()
        self._path = path
        found = read_rows(path) if done else {}
        self.rows = {epoch: row for epoch, row in found.items() if epoch < done}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the epoch's line."""
        values = {name: repr(float(value)) for name, value in sorted((logs or {}).items())}
        self.rows[epoch] = {"epoch": str(epoch), **values}
        columns = dict.fromkeys(name for row in self.rows.values() for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), restval="nan", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[each] for each in sorted(self.rows))
        files.write_text(self._path, text.getvalue())


class Report(keras.callbacks.Callback):
    """Calls a function with a `TrainingProgress` after each step and each epoch.

    It belongs at the end of the callbacks, after the one that saves.
    """

    def __init__(
        self,
        report: Callable[[TrainingProgress], None],
        recipe: Recipe,
        *,
        epochs: int,
        steps: int,
    ) -> None:
        """Store the function, and the numbers of epochs and of steps per epoch."""
        super().__init__()
        self._report, self._batch, self._epochs, self._steps = (
            report,
            recipe.batch_size,
            epochs,
            steps,
        )
        self._last = recipe.max_steps or epochs * steps
        self._epoch, self._loss = 0, float("nan")
        self._first: float | None = None
        self._done = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Store the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Report a step."""
        self._loss = float((logs or {}).get("loss", self._loss))
        if self._first is None:
            self._first = time.monotonic()
        else:
            self._done += 1
        self._report_at(batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Report an epoch."""
        self._report_at(self._steps)

    def _report_at(self, step: int) -> None:
        rate = left = None
        if self._first is not None and self._done:
            per_step = (time.monotonic() - self._first) / self._done
            rate = self._batch / per_step
            left = (self._last - self._epoch * self._steps - step) * per_step
        self._report(
            TrainingProgress(
                self._epoch + 1, self._epochs, step, self._steps, self._loss, rate, left
            )
        )
