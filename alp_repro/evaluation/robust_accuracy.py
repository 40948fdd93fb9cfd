"""A Keras callback that attacks a model after its epochs and logs what is left of its accuracy."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from alp_repro.attacks.base import Attack
from alp_repro.attacks.batches import DEFAULT_BATCH
from alp_repro.attacks.phases import Ensemble
from alp_repro.attacks.presets import strong_attack
from alp_repro.errors import InputError, NoGradientError
from alp_repro.evaluation.evaluate import evaluate
from alp_repro.evaluation.input_check import checked_images, checked_labels
from alp_repro.evaluation.model_check import admitted_model
from alp_repro.validation.plain_numbers import number, whole_number

_MOST_EPOCHS = 10**6
_STRONGER_STEPS = 40

AnyAttack = Attack | Ensemble
Attacks = AnyAttack | Sequence[AnyAttack]


class RobustAccuracy(keras.callbacks.Callback):
    """Logs the accuracy on a few held images under attack, and tells when an attack is fooled.

        robust.fit(
            dataset,
            callbacks=[
                alp_repro.RobustAccuracy(x_val, y_val),
                keras.callbacks.ModelCheckpoint(
                    "best.keras", monitor="robust_accuracy", mode="max", save_best_only=True
                ),
            ],
        )

    It adds to the logs of each epoch, and belongs before callbacks that read them:

      `robust_accuracy`: share of images that are right and withstand `attack` and `stronger`;
      `default_robust_accuracy`: that withstand `attack`, where there is a stronger one.

    Where the two part by more than `tolerance`, a warning says so: the model has learned to fool
    the attack rather than to withstand it (catastrophic overfitting, masked gradients). Both are
    NaN after epochs that are not due, and where the model has no gradient to attack by.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        every: int = 1,
        attack: Attacks | None = None,
        stronger: Attacks | Literal["auto"] | None = "auto",
        tolerance: float = 0.1,
        batch_size: int = DEFAULT_BATCH,
        seed: int = 0,
    ) -> None:
        """Takes the images and what attacks them.

        Args:
          x: [n, height, width, channels], uint8 (0-255) or float in [0, 1].
          y: [n] integers or [n, classes] one-hot.
          every: epochs between two looks; the last epoch is always one.
          attack: one, or several that each image has to withstand; None: the training attack of a
            `LogitPairing`.
          stronger: what to compare with; None: nothing, "auto": one turn of the preset `strong`,
            120 gradients an image.
          tolerance: difference of the accuracies beyond which a warning is given.
          batch_size, seed: see `evaluate`.

        Raises:
          InputError: images, labels or numbers out of range.
        """
        super().__init__()
        self._images = checked_images(x)
        labels = np.asarray(y)
        if labels.ndim == 2:
            labels = np.argmax(labels, axis=1) if labels.shape[1] > 1 else labels[:, 0]
        self._labels = checked_labels(labels, len(self._images))
        self._every = whole_number(every, name="every", low=1, high=_MOST_EPOCHS)
        self._tolerance = number(tolerance, name="tolerance", low=0, high=1)
        self._given, self._given_stronger = attack, stronger
        self._batch_size, self._seed = batch_size, seed
        self._attacks: list[AnyAttack] = []
        self._stronger: list[AnyAttack] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Raises InputError where the model is nothing that can be attacked so."""
        given = self._given
        if given is None:
            given = getattr(getattr(self.model, "objective", None), "attack", None)
        if given is None:
            raise InputError(
                "RobustAccuracy: expected an attack, since the model has no training attack to "
                "take; give attack=..."
            )
        self._attacks = _listed(given, "attack")
        stronger = self._given_stronger
        if stronger == "auto":
            stronger = _stronger_than(self._attacks)
        self._stronger = [] if stronger is None else _listed(stronger, "stronger")
        if self._classifier.built:
            with contextlib.suppress(NoGradientError):  # a head may begin with zeros
                for attack in self._attacks:
                    admitted_model(self._classifier, self._images, self._labels, attack=attack)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Attacks the model after an epoch that is due."""
        due = (epoch + 1) % self._every == 0 or epoch + 1 == (self.params or {}).get("epochs")
        default, worst = self._accuracies(epoch) if due else (np.nan, np.nan)
        logs = {} if logs is None else logs
        logs["robust_accuracy"] = worst
        if self._stronger:
            logs["default_robust_accuracy"] = default
            if default - worst > self._tolerance:
                warnings.warn(
                    f"epoch {epoch + 1}: {default:.1%} of the images withstand "
                    f"{_told(self._attacks)}, and {worst:.1%} when {_told(self._stronger)} is tried"
                    " too: the model fools the weaker attack rather than to withstand it "
                    "(catastrophic overfitting or masked gradients)",
                    stacklevel=2,
                )

    def _accuracies(self, epoch: int) -> tuple[float, float]:
        """Shares of images that withstand the attacks, and these and the stronger ones."""
        right = np.ones(len(self._labels), bool)
        found = []
        try:
            for attacks in (self._attacks, self._stronger):
                for attack in attacks:
                    right = right & self._withstand(attack)
                found.append(float(np.mean(right)))
        except NoGradientError as error:
            warnings.warn(f"epoch {epoch + 1}: no robust accuracy: {error}", stacklevel=2)
            return np.nan, np.nan
        return found[0], found[1]

    def _withstand(self, attack: AnyAttack) -> np.ndarray:
        record = evaluate(
            self._classifier,
            self._images,
            self._labels,
            attack=attack,
            seed=self._seed,
            batch_size=self._batch_size,
            progress=False,
        )
        return record.standing & record.clean_correct

    @property
    def _classifier(self) -> keras.Model:
        """What is attacked: the classifier inside a model that trains it, or the model itself."""
        return getattr(self.model, "classifier", self.model)


def _listed(attacks: Any, name: str) -> list[AnyAttack]:
    found = [attacks] if isinstance(attacks, AnyAttack) else list(attacks)
    for attack in found:
        if not isinstance(attack, AnyAttack):
            raise InputError(f"RobustAccuracy {name}: expected attacks, got {attack!r}")
    return found


def _stronger_than(attacks: list[AnyAttack]) -> Attack:
    """One turn of `strong`: aimed from afar, without a target, aimed from near."""
    turns: Any = strong_attack(max(attack.eps for attack in attacks)).phases[0].attack
    return dataclasses.replace(turns, nb_iter=_STRONGER_STEPS, restarts=3)


def _told(attacks: list[AnyAttack]) -> str:
    return " and ".join(str(attack) for attack in attacks)
