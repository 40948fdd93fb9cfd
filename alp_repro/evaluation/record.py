"""The record of an attack with restarts on a set of images."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro.attacks.phases import Ensemble, as_ensemble, attack_of
from alp_repro.errors import InputError
from alp_repro.evaluation.intervals import wilson_interval

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

    from alp_repro.attacks.base import Attack


@dataclasses.dataclass(frozen=True, eq=False)
class AttackRecord:
    """The outcome of the restarts of an attack on a set of images; complete or unfinished.

    Attributes:
      labels: int32 [n], true classes.
      indices: int64 [n], position of each image in its data set's split.
      clean_predictions: int32 [n], of the clean images.
      first_break: int32 [n], the first restart that broke the image, -1: none yet.
      next_restart: int32 [n], restarts run on the image; without losses, up to its first break.
      nonfinite_gradients: int32 [n], steps on the image whose gradient had entries that are not
        finite; these counted as 0.
      settings: the settings of this result: attack, seed, batch, hashes of model and images.
      sessions: provenance of every process that worked on it.
      losses: float32 [n, restarts], cross-entropy of the true label after every restart, NaN where
        none was run; None unless they were requested.
      broken: bool [n, restarts], recorded together with `losses`.
      adversarial: float32 like the images: the first adversarial image; zeros where no restart
        broke the image; None unless requested.
      best_early_loss: float32 [n], the largest of the losses after the restarts before the first
        phase that has a budget; None without one. Files call it `closest`.

    Examples:
      >>> layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
      >>> model = keras.Sequential(layers)
      >>> images = np.random.default_rng(0).uniform(size=(6, 8, 8, 1))
      >>> labels = np.argmax(model(images), axis=1)
      >>> attack = alp_repro.PGD(eps=0.1, eps_iter=0.02, nb_iter=5, restarts=2)
      >>> record = alp_repro.evaluate(model, images, labels, attack=attack)
      >>> low, high = record.interval_at(2)
      >>> low <= record.accuracy_at(2) <= high
      True
      >>> record.first_break.shape  # the restart that broke each image
      (6,)
    """

    labels: np.ndarray
    indices: np.ndarray
    clean_predictions: np.ndarray
    first_break: np.ndarray
    next_restart: np.ndarray
    nonfinite_gradients: np.ndarray
    settings: dict[str, Any]
    sessions: list[dict[str, Any]]
    losses: np.ndarray | None = None
    broken: np.ndarray | None = None
    adversarial: np.ndarray | None = None
    best_early_loss: np.ndarray | None = None

    @functools.cached_property
    def attack(self) -> Attack | Ensemble:
        """The attack, without the number of its restarts."""
        return attack_of(self.settings["attack"])

    @property
    def clean_correct(self) -> np.ndarray:
        """Bool [n]: the clean image is classified correctly."""
        return self.clean_predictions == self.labels

    @property
    def clean_accuracy(self) -> float:
        """The share of clean images that are classified correctly."""
        return float(np.mean(self.clean_correct))

    @property
    def standing(self) -> np.ndarray:
        """Bool [n]: no restart so far has broken the image."""
        return self.first_break < 0

    @property
    def wrong_yet_standing(self) -> np.ndarray:
        """Bool [n]: the clean image is misclassified, yet no restart has broken it.

        A targeted attack may lead such an image to its true class. As in the paper, the accuracy
        counts it as robust; `right_at` does not.
        """
        return self.standing & ~self.clean_correct

    @property
    def broken_by(self) -> np.ndarray:
        """Int [n]: the phase of an ensemble that broke each image, from 0; -1: none."""
        phase = as_ensemble(self.attack).phase_at(self.first_break)
        return np.where(self.standing, -1, phase)

    def allowed(self, restarts: int) -> np.ndarray:
        """Return how many of these restarts each image gets, int [n], as known so far.

        See `Ensemble.allowed`.
        """
        if self.best_early_loss is None:
            return np.full(len(self.labels), restarts)
        return as_ensemble(self.attack).allowed(self, restarts)

    def standing_at(self, restarts: int) -> np.ndarray:
        """Return which images none of the first `restarts` restarts broke, bool [n]."""
        return self.standing | (self.first_break >= self.allowed(restarts))

    def missing(self, restarts: int) -> np.ndarray:
        """Return how many of these restarts are still to run on each image, int [n]."""
        missing = np.maximum(self.allowed(restarts) - self.next_restart, 0)
        return missing * self.standing if self.losses is None else missing

    def gradients_missing(self, attack: Attack | Ensemble) -> int:
        """Return the cost of the `missing` restarts of an attack, if no further image breaks."""
        reached = self.next_restart
        whole = attack.cost_of(reached + self.missing(attack.restarts))
        return int((whole - attack.cost_of(reached)).sum())

    def complete_to(self, restarts: int) -> bool:
        """Return whether every image is broken or has had these restarts, as far as allowed."""
        return not self.missing(restarts).any()

    @property
    def waiting(self) -> int:
        """The number of images with restarts left that others had, or that a budget allows."""
        budget = self.best_early_loss is not None
        most = self.attack.restarts if budget else int(self.next_restart.max())
        return int(np.count_nonzero(self.missing(most)))

    def restarts_spent(self, restarts: int) -> np.ndarray:
        """Return the restarts up to the one that broke the image, or all of them, int [n]."""
        self._check_complete(restarts)
        left = self.standing_at(restarts)
        return np.where(left, self.allowed(restarts), self.first_break + 1)

    def gradients_spent(self, restarts: int) -> np.ndarray:
        """Return the cost of `restarts_spent`, int [n]; a query counts as half a gradient."""
        return self.attack.cost_of(self.restarts_spent(restarts))

    def accuracy_at(self, restarts: int) -> float:
        """Return the adversarial accuracy: the share of images that none of the restarts broke.

        As in the paper, images that were misclassified from the start and that no restart broke
        (`wrong_yet_standing`) count as robust; `right_at` leaves them out.

        Raises:
          ValueError: the record does not have these restarts.
        """
        return self.robust_at(restarts) / len(self.labels)

    def robust_at(self, restarts: int) -> int:
        """Return how many images none of the first `restarts` restarts broke."""
        self._check_complete(restarts)
        return int(np.sum(self.standing_at(restarts)))

    def right_at(self, restarts: int) -> int:
        """Return how many images are classified correctly before and after the restarts.

        An image that was misclassified from the start is left out, as in audits and ensembles;
        `robust_at` counts it as robust.

        Raises:
          ValueError: the record does not have these restarts.
        """
        self._check_complete(restarts)
        return int(np.sum(self.standing_at(restarts) & self.clean_correct))

    def interval_at(self, restarts: int) -> tuple[float, float]:
        """Return the 95% Wilson interval of `accuracy_at`."""
        return wilson_interval(self.robust_at(restarts), len(self.labels))

    def mean_accuracy(self, restarts: int) -> float:
        """Return the mean over restarts of the accuracy after that one; needs recorded losses."""
        if self.broken is None:
            raise ValueError("no losses were recorded: evaluate with record_losses=True")
        self._check_complete(restarts)
        return float(1.0 - np.mean(self.broken[:, :restarts]))

    def __repr__(self) -> str:
        """Describe the record in one line: images, accuracies and restarts."""
        n, restarts = len(self.labels), self._reach
        attack = self.settings.get("attack", {})
        words = f" {attack['method']} eps={attack['eps'] * 255:g}" if attack else ""
        line = f"AttackRecord{words}: {n} images, clean {self.clean_accuracy:.1%}"
        if restarts:
            low, high = self.interval_at(restarts)
            accuracy = f"{self.accuracy_at(restarts):.1%} [{low:.1%}, {high:.1%}]"
            line += f", adversarial {accuracy} after {restarts} restarts"
            if wrong := self.robust_at(restarts) - self.right_at(restarts):
                line += (
                    f" ({wrong} of the {self.robust_at(restarts)} unbroken images were "
                    "misclassified from the start)"
                )
        else:
            line += f", unfinished ({int(self.standing.sum())} images unbroken so far)"
        if self.nonfinite_gradients.any():
            line += f", gradients not finite in {int(self.nonfinite_gradients.sum())} steps"
        return f"<{line}>"

    @property
    def _reach(self) -> int:
        """The number of restarts that the record is complete to."""
        most = int(self.next_restart.max())
        behind = self.missing(most) > 0  # none: all images are broken, or the budget is spent
        return int(self.next_restart[behind].min()) if behind.any() else most

    def plot(self, ax: matplotlib.axes.Axes | None = None) -> matplotlib.axes.Axes:
        """Plot the adversarial accuracy against the restarts, with its 95% interval.

        Args:
          ax: where to draw; None: the current axes of matplotlib.

        Raises:
          ValueError: not one restart is complete.
        """
        import matplotlib.pyplot as plt  # not needed to read records

        self._check_complete(1)
        restarts = range(1, self._reach + 1)
        ax = plt.gca() if ax is None else ax
        accuracies = [100 * self.accuracy_at(r) for r in restarts]
        low, high = 100 * np.array([self.interval_at(r) for r in restarts]).T
        (line,) = ax.plot(restarts, accuracies, drawstyle="steps-post")
        ax.fill_between(restarts, low, high, step="post", alpha=0.2, color=line.get_color())
        ax.set(xlabel="restarts", ylabel="adversarial accuracy (%)")
        return ax

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per image, with missing values of first_break for unbroken images.

        Raises:
          InputError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise InputError("to_dataframe needs pandas: pip install pandas") from None
        first = pd.array(self.first_break, dtype="Int32")
        first[self.standing] = pd.NA
        return pd.DataFrame(
            {
                "label": self.labels,
                "clean_prediction": self.clean_predictions,
                "clean_correct": self.clean_correct,
                "standing": self.standing,
                "first_break": first,
                "restarts_run": self.next_restart,
            },
            index=pd.Index(self.indices, name="index"),
        )

    def _check_complete(self, restarts: int) -> None:
        if not self.complete_to(restarts):
            raise ValueError(f"the record does not have {restarts} restarts of every image")


def new_record(
    *,
    labels: np.ndarray,
    indices: np.ndarray,
    clean_predictions: np.ndarray,
    settings: dict[str, Any],
    record_losses: bool = False,
    image_shape: tuple[int, ...] | None = None,
) -> AttackRecord:
    """Return a record before the first restart.

    Args:
      labels, indices, clean_predictions, settings: see `AttackRecord`.
      record_losses: also run, and record, every restart of images that are already broken.
      image_shape: store adversarial images of this shape; None: do not store them.
    """
    n = len(labels)
    attack = settings.get("attack")
    runs_before_budget = as_ensemble(attack_of(attack)).runs_before_budget if attack else 0
    return AttackRecord(
        labels=labels.astype(np.int32),
        indices=indices.astype(np.int64),
        clean_predictions=clean_predictions.astype(np.int32),
        first_break=np.full(n, -1, np.int32),
        next_restart=np.zeros(n, np.int32),
        nonfinite_gradients=np.zeros(n, np.int32),
        settings=settings,
        sessions=[],
        losses=np.empty((n, 0), np.float32) if record_losses else None,
        broken=np.empty((n, 0), bool) if record_losses else None,
        adversarial=np.zeros((n, *image_shape), np.float32) if image_shape else None,
        best_early_loss=np.zeros(n, np.float32) if runs_before_budget else None,
    )
