"""A Keras callback that attacks a model after its epochs and logs its robust accuracy."""

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
from alp_repro.evaluation.model_check import validate_model
from alp_repro.validation.plain_numbers import number, whole_number

_MAX_EPOCHS = 10**6
_STRONGER_STEPS = 40

AnyAttack = Attack | Ensemble
Attacks = AnyAttack | Sequence[AnyAttack]


class RobustAccuracy(keras.callbacks.Callback):
    """Logs the accuracy on validation images under attack, and warns if the attack is fooled.

    It adds these to the logs of each epoch, and belongs before callbacks that read them:

      `robust_accuracy`: the share of images that are correctly classified and withstand `attack`
        and `stronger`;
      `default_robust_accuracy`: the share that withstand `attack`, if there is a stronger one.

    If the two differ by more than `tolerance`, a warning says that the model has learned to fool
    the attack rather than to withstand it (catastrophic overfitting, masked gradients). Both are
    NaN after epochs that are not due, and if the model has no gradient.

    Examples:
      >>> layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
      >>> model = keras.Sequential(layers)
      >>> images = np.random.default_rng(0).uniform(size=(6, 8, 8, 1))
      >>> labels = np.argmax(model(images), axis=1)
      >>> attack = alp_repro.PGD(eps=0.1, eps_iter=0.1, nb_iter=3)
      >>> robust = alp_repro.LogitPairing(model, attack=attack, adversarial_fraction=1.0)
      >>> robust.compile(optimizer="adam")
      >>> best = keras.callbacks.ModelCheckpoint(
      ...     "best.keras", monitor="robust_accuracy", mode="max", save_best_only=True
      ... )
      >>> watch = alp_repro.RobustAccuracy(images, labels)
      >>> history = robust.fit(images, labels, callbacks=[watch, best], verbose=0)
      >>> list(history.history["robust_accuracy"])[-1] <= 1
      True
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
        """Create the callback.

        Args:
          x: [n, height, width, channels], uint8 (0-255) or float in [0, 1].
          y: [n] integers or [n, classes] one-hot.
          every: epochs between two evaluations; the last epoch is always evaluated.
          attack: one, or several that each image has to withstand; None: the training attack of a
            `LogitPairing`.
          stronger: a stronger attack to compare with, or several; None: none, "auto": one group of
            restarts of the preset `strong`, 120 gradients per image.
          tolerance: the difference of the accuracies above which there is a warning.
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
        self._every = whole_number(every, name="every", low=1, high=_MAX_EPOCHS)
        self._tolerance = number(tolerance, name="tolerance", low=0, high=1)
        self._given, self._given_stronger = attack, stronger
        self._batch_size, self._seed = batch_size, seed
        self._attacks: list[AnyAttack] = []
        self._stronger: list[AnyAttack] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Raise InputError if the model cannot be attacked."""
        given = self._given
        if given is None:
            given = getattr(getattr(self.model, "objective", None), "attack", None)
        if given is None:
            raise InputError(
                "RobustAccuracy: expected attack=..., since the model has no training attack to use"
            )
        self._attacks = _listed(given, "attack")
        stronger = self._given_stronger
        if stronger == "auto":
            stronger = _stronger_than(self._attacks)
        self._stronger = [] if stronger is None else _listed(stronger, "stronger")
        if self._classifier.built:
            with contextlib.suppress(NoGradientError):  # a head may begin with zeros
                for attack in self._attacks:
                    validate_model(self._classifier, self._images, self._labels, attack=attack)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Attack the model after an epoch that is due."""
        due = (epoch + 1) % self._every == 0 or epoch + 1 == (self.params or {}).get("epochs")
        default, worst = self._accuracies(epoch) if due else (np.nan, np.nan)
        logs = {} if logs is None else logs
        logs["robust_accuracy"] = worst
        if self._stronger:
            logs["default_robust_accuracy"] = default
            if default - worst > self._tolerance:
                warnings.warn(
                    f"epoch {epoch + 1}: {default:.1%} of the images withstand "
                    f"{_joined(self._attacks)}, but only {worst:.1%} withstand "
                    f"{_joined(self._stronger)} as well: the model fools the weaker attack rather "
                    "than withstanding it (catastrophic overfitting or masked gradients)",
                    stacklevel=2,
                )

    def _accuracies(self, epoch: int) -> tuple[float, float]:
        """Return the shares of images that withstand the attacks, and the stronger ones as well."""
        right = np.ones(len(self._labels), bool)
        found = []
        try:
            for attacks in (self._attacks, self._stronger):
                for attack in attacks:
                    right = right & self._withstand(attack)
                found.append(float(np.mean(right)))
        except NoGradientError as error:
            warnings.warn(f"epoch {epoch + 1}: robust accuracy not computed: {error}", stacklevel=2)
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
        """The model to attack: the classifier inside a `LogitPairing`, or the model itself."""
        return getattr(self.model, "classifier", self.model)


def _listed(attacks: Any, name: str) -> list[AnyAttack]:
    found = [attacks] if isinstance(attacks, AnyAttack) else list(attacks)
    for attack in found:
        if not isinstance(attack, AnyAttack):
            raise InputError(f"RobustAccuracy {name}: expected attacks, got {attack!r}")
    return found


def _stronger_than(attacks: list[AnyAttack]) -> Attack:
    """Return one group of restarts of `strong` with fewer steps."""
    turns: Any = strong_attack(max(attack.eps for attack in attacks)).phases[0].attack
    return dataclasses.replace(turns, nb_iter=_STRONGER_STEPS, restarts=3)


def _joined(attacks: list[AnyAttack]) -> str:
    return " and ".join(str(attack) for attack in attacks)
