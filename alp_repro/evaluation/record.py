"""What restarts of an attack did to a set of images."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro.attacks.phases import Ensemble, attack_of, ensemble_of
from alp_repro.errors import InputError
from alp_repro.evaluation.intervals import wilson_interval

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

    from alp_repro.attacks.base import Attack


@dataclasses.dataclass(frozen=True, eq=False)
class AttackRecord:
    """What restarts of one attack did to a set of images; complete or on its way.

    Attributes:
      labels: int32 [n], true classes.
      indices: int64 [n], position of each image in its data set's split.
      clean_predictions: int32 [n], of the clean images.
      first_break: int32 [n], the first restart that broke the image, -1: none yet.
      next_restart: int32 [n], restarts run on the image; without losses, up to its first break.
      nonfinite_gradients: int32 [n], steps on the image whose gradient had entries that are not
        finite; these counted as 0.
      settings: what makes this result: attack, seed, batch, hashes of model and images.
      sessions: provenance of every process that worked on it.
      losses: float32 [n, restarts], cross-entropy of the true label after every restart, NaN where
        none was run; None unless they were asked for.
      broken: bool [n, restarts] beside `losses`.
      adversarial: float32 like the images: the image that broke it; zeros where none did; None
        unless asked for.
      closest: float32 [n], the largest of the losses after the restarts before the first phase
        that has a budget; None without one.

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
    closest: np.ndarray | None = None

    @functools.cached_property
    def attack(self) -> Attack | Ensemble:
        """What was done, but for the number of its restarts."""
        return attack_of(self.settings["attack"])

    @property
    def clean_correct(self) -> np.ndarray:
        """Bool [n]: the clean image is classified correctly."""
        return self.clean_predictions == self.labels

    @property
    def clean_accuracy(self) -> float:
        """Share of clean images that are classified correctly."""
        return float(np.mean(self.clean_correct))

    @property
    def standing(self) -> np.ndarray:
        """Bool [n]: no restart so far has broken the image."""
        return self.first_break < 0

    @property
    def wrong_yet_standing(self) -> np.ndarray:
        """Bool [n]: misclassified before any attack, and yet no restart has broken the image.

        With a target, an attack may lead such an image to its true class. As in the paper, the
        accuracy counts it as withstanding; `right_at` does not.
        """
        return self.standing & ~self.clean_correct

    @property
    def broken_by(self) -> np.ndarray:
        """Int [n]: the phase of an ensemble that broke each image, from 0; -1: none did."""
        phases = ensemble_of(self.attack).phases
        ends = np.cumsum([phase.attack.restarts for phase in phases[:-1]])
        return np.where(self.standing, -1, np.searchsorted(ends, self.first_break, side="right"))

    def allowed(self, restarts: int) -> np.ndarray:
        """Int [n]: how many of so many restarts each image gets, as of now; see `Ensemble`."""
        if self.closest is None:
            return np.full(len(self.labels), restarts)
        return ensemble_of(self.attack).allowed(self, restarts)

    def missing(self, restarts: int) -> np.ndarray:
        """Int [n]: how many of so many restarts are still to run on each image."""
        missing = np.maximum(self.allowed(restarts) - self.next_restart, 0)
        return missing * self.standing if self.losses is None else missing

    def gradients_missing(self, attack: Attack | Ensemble) -> int:
        """What is `missing` of an attack's restarts takes, if no further image breaks."""
        reached = self.next_restart
        whole = attack.cost_of(reached + self.missing(attack.restarts))
        return int((whole - attack.cost_of(reached)).sum())

    def complete_to(self, restarts: int) -> bool:
        """Whether every image is broken or has seen so many restarts, or all that it may."""
        return not self.missing(restarts).any()

    @property
    def waiting(self) -> int:
        """How many images are still to get restarts that others got, or that a budget allows."""
        most = int(self.next_restart.max()) if self.closest is None else self.attack.restarts
        return int(np.count_nonzero(self.missing(most)))

    def restarts_spent(self, restarts: int) -> np.ndarray:
        """Int [n]: restarts an image needed of so many: up to the one that broke it, or all."""
        self._check_complete(restarts)
        allowed = self.allowed(restarts)
        broken = ~self.standing & (self.first_break < allowed)
        return np.where(broken, self.first_break + 1, allowed)

    def gradients_spent(self, restarts: int) -> np.ndarray:
        """Int [n]: what `restarts_spent` took of an image, a query counting as half a gradient."""
        return self.attack.cost_of(self.restarts_spent(restarts))

    def accuracy_at(self, restarts: int) -> float:
        """Adversarial accuracy after so many restarts: the share that none of them broke.

        As the paper counts: images that were wrong to begin with and that no restart broke are
        among them (`wrong_yet_standing`); `right_at` counts without these.

        Raises:
          ValueError: the record does not reach so far.
        """
        return self.robust_at(restarts) / len(self.labels)

    def robust_at(self, restarts: int) -> int:
        """How many images none of the first `restarts` restarts broke."""
        self._check_complete(restarts)
        return int(np.sum(self.standing | (self.first_break >= self.allowed(restarts))))

    def right_at(self, restarts: int) -> int:
        """Return how many images are classified correctly before and after so many restarts.

        An image that was wrong to begin with is left out, as in audits and ensembles, where
        `robust_at` counts it as withstanding.

        Raises:
          ValueError: the record does not reach so far.
        """
        self._check_complete(restarts)
        left = self.standing | (self.first_break >= self.allowed(restarts))
        return int(np.sum(left & self.clean_correct))

    def interval_at(self, restarts: int) -> tuple[float, float]:
        """95% Wilson interval of `accuracy_at`."""
        return wilson_interval(self.robust_at(restarts), len(self.labels))

    def mean_accuracy(self, restarts: int) -> float:
        """Mean over restarts of the accuracy that one alone leaves; needs recorded losses."""
        if self.broken is None:
            raise ValueError("no losses were recorded, so broken images were not attacked again")
        self._check_complete(restarts)
        return float(1.0 - np.mean(self.broken[:, :restarts]))

    def __repr__(self) -> str:
        """One line: the images, the accuracies and how far it has come."""
        n, restarts = len(self.labels), self._reach
        attack = self.settings.get("attack", {})
        words = f" {attack['method']} eps={attack['eps'] * 255:g}" if attack else ""
        line = f"AttackRecord{words}: {n} images, clean {self.clean_accuracy:.1%}"
        if restarts:
            low, high = self.interval_at(restarts)
            accuracy = f"{self.accuracy_at(restarts):.1%} [{low:.1%}, {high:.1%}]"
            line += f", adversarial {accuracy} after {restarts} restarts"
            if wrong := self.robust_at(restarts) - self.right_at(restarts):
                line += f" ({wrong} of the {self.robust_at(restarts)} left were wrong before it)"
        else:
            line += f", unfinished ({int(self.standing.sum())} images stand so far)"
        if self.nonfinite_gradients.any():
            line += f", gradients not finite in {int(self.nonfinite_gradients.sum())} steps"
        return f"<{line}>"

    @property
    def _reach(self) -> int:
        """The number of restarts that the record is complete to."""
        most = int(self.next_restart.max())
        behind = self.missing(most) > 0  # nobody: nothing stands, or a budget allows no more
        return int(self.next_restart[behind].min()) if behind.any() else most

    def plot(self, ax: matplotlib.axes.Axes | None = None) -> matplotlib.axes.Axes:
        """Draws the adversarial accuracy against the restarts, with its 95% interval.

        Args:
          ax: where to draw; None: the current axes of matplotlib.

        Raises:
          ValueError: not one restart is complete.
        """
        import matplotlib.pyplot as plt  # a reader of records may do without

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
        """One row an image: index, label, clean_prediction, first_break (missing: it stands) …

        Raises:
          InputError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise InputError("to_dataframe: pandas is needed (pip install pandas)") from None
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
            raise ValueError(f"the record does not reach restart {restarts}")


def new_record(
    *,
    labels: np.ndarray,
    indices: np.ndarray,
    clean_predictions: np.ndarray,
    settings: dict[str, Any],
    record_losses: bool = False,
    image_shape: tuple[int, ...] | None = None,
) -> AttackRecord:
    """A record before the first restart.

    Args:
      labels, indices, clean_predictions, settings: see `AttackRecord`.
      record_losses: also run, and note, every restart of images that are already broken.
      image_shape: keep the images that broke, of this shape; None: do not.
    """
    n = len(labels)
    attack = settings.get("attack")
    judged_by = ensemble_of(attack_of(attack)).judged_by if attack else 0
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
        closest=np.zeros(n, np.float32) if judged_by else None,
    )
