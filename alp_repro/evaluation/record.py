"""What restarts of an attack did to a set of images, and how it is kept on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro.attacks.settings import BUDGET_FIRST, BUDGET_RESTARTS, Attack
from alp_repro.decoding import from_plain
from alp_repro.errors import InputError
from alp_repro.evaluation.intervals import wilson_interval
from alp_repro.files import array, note, reading_arrays, write_arrays

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas


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
      closest: float32 [n], the largest of the losses after the first BUDGET_FIRST restarts; None
        without a budget.
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

    def allowed(self, restarts: int) -> np.ndarray:
        """Int [n]: how many of so many restarts the attack's budget allows each image, as of now.

        While the first BUDGET_FIRST are not over, no more than these; then all of them to the
        images that came closest, as many as the rest of the budget pays for. All that this asks of
        the record is what these restarts did, so it stays the same from there on.
        """
        allowed = np.full(len(self.labels), restarts)
        if self.closest is None or restarts <= BUDGET_FIRST:
            return allowed
        attack = self.settings["attack"]
        standing = self.standing | (self.first_break >= BUDGET_FIRST)
        allowed[:] = BUDGET_FIRST
        if np.any(self.next_restart[self.standing] < BUDGET_FIRST):
            return allowed
        spent = np.where(standing, BUDGET_FIRST, self.first_break + 1).sum() * attack["nb_iter"]
        left = attack["budget"] * len(self.labels) - spent
        count = left // (attack["nb_iter"] * (BUDGET_RESTARTS - BUDGET_FIRST))
        order = np.argsort(np.where(standing, -self.closest, np.inf), kind="stable")
        allowed[order[: max(0, min(count, standing.sum()))]] = restarts
        return allowed

    def missing(self, restarts: int) -> np.ndarray:
        """Int [n]: how many of so many restarts are still to run on each image."""
        missing = np.maximum(self.allowed(restarts) - self.next_restart, 0)
        return missing * self.standing if self.losses is None else missing

    def complete_to(self, restarts: int) -> bool:
        """Whether every image is broken or has seen so many restarts, or all that it may."""
        return not self.missing(restarts).any()

    def restarts_spent(self, restarts: int) -> np.ndarray:
        """Int [n]: restarts an image needed of so many: up to the one that broke it, or all."""
        self._check_complete(restarts)
        broken = ~self.standing & (self.first_break < restarts)
        return np.where(broken, self.first_break + 1, self.allowed(restarts))

    def accuracy_at(self, restarts: int) -> float:
        """Adversarial accuracy after so many restarts: the share that none of them broke.

        Raises:
          ValueError: the record does not reach so far.
        """
        return self.robust_at(restarts) / len(self.labels)

    def robust_at(self, restarts: int) -> int:
        """How many images none of the first `restarts` restarts broke."""
        self._check_complete(restarts)
        return int(np.sum(self.standing | (self.first_break >= restarts)))

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
    return AttackRecord(
        labels=labels.astype(np.int32),
        indices=indices.astype(np.int64),
        clean_predictions=clean_predictions.astype(np.int32),
        first_break=np.full(n, -1, np.int32),
        **{name: np.zeros(n, np.int32) for name in ("next_restart", "nonfinite_gradients")},
        settings=settings,
        sessions=[],
        losses=np.empty((n, 0), np.float32) if record_losses else None,
        broken=np.empty((n, 0), bool) if record_losses else None,
        adversarial=np.zeros((n, *image_shape), np.float32) if image_shape else None,
        closest=np.zeros(n, np.float32) if settings.get("attack", {}).get("budget") else None,
    )


_ARRAYS = {
    "labels": np.int32,
    "indices": np.int64,
    "clean_predictions": np.int32,
    "first_break": np.int32,
    "next_restart": np.int32,
    "nonfinite_gradients": np.int32,
}
_OPTIONAL = ("losses", "broken", "adversarial", "closest")


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The settings of a record as far as a reader knows them; a record has more of them."""

    attack: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    batch_size: int = 1
    num_images: int = 0
    images: str = ""
    model: str = ""
    losses: bool = False
    adversarial: bool = False


def save_record(path: Path, record: AttackRecord) -> None:
    """Writes a record as `.npz`, atomically; settings and sessions are JSON text in it."""
    arrays = {name: getattr(record, name) for name in _ARRAYS}
    arrays |= {name: v for name in _OPTIONAL if (v := getattr(record, name)) is not None}
    write_arrays(path, arrays, settings=record.settings, sessions=record.sessions)


def load_record(path: str | Path) -> AttackRecord:
    """Reads a record, and compares each of its parts with the others.

    Raises:
      InputError: the file is truncated, no record, or one whose parts do not fit each other.
    """
    path = Path(path).expanduser()
    with reading_arrays(path, what="attack result") as file:
        n = len(array(file, "labels", np.int32, (None,)))
        arrays = {
            # Results of version 0.1 do not have all of them.
            name: array(file, name, dtype, (n,)) if name in file.files else np.zeros(n, dtype)
            for name, dtype in _ARRAYS.items()
            if name in file.files or name == "nonfinite_gradients"
        }
        if "losses" in file.files or "broken" in file.files:
            arrays["losses"] = array(file, "losses", np.float32, (n, None))
            arrays["broken"] = array(file, "broken", bool, arrays["losses"].shape)
        if "adversarial" in file.files:
            arrays["adversarial"] = array(file, "adversarial", np.float32, (n, None, None, None))
        if "closest" in file.files:
            arrays["closest"] = array(file, "closest", np.float32, (n,))
        record = AttackRecord(
            **arrays,
            settings=note(file, "settings"),
            sessions=note(file, "sessions", list[dict[str, Any]]),
        )
        _check(record)
        return record


def _check(found: AttackRecord) -> None:
    """Refuses values that no evaluation writes; InputError in words that a reader adds to."""
    if not len(found.labels):
        raise InputError("it has no images")
    for name in ("labels", "indices", "clean_predictions", "next_restart", "nonfinite_gradients"):
        if getattr(found, name).min() < 0:
            raise InputError(f"{name} has a negative entry")
    if found.first_break.min() < -1 or np.any(found.first_break >= found.next_restart):
        raise InputError("first_break names restarts that were not run")
    if found.losses is not None and found.broken is not None:
        _check_losses(found, found.losses, found.broken)
    if found.adversarial is not None:
        pixels = found.adversarial
        # A comparison with what is no number is false, so NaN is refused too.
        if not (np.all(pixels >= 0) and np.all(pixels <= 1)):
            raise InputError("adversarial has pixels outside [0, 1]")
        if pixels[found.standing].any():
            raise InputError("adversarial has images that first_break calls standing")
    if found.closest is not None and not np.all(found.closest >= 0):
        raise InputError("closest has entries that are no loss")
    _check_settings(found)


def _check_losses(record: AttackRecord, losses: np.ndarray, broken: np.ndarray) -> None:
    if record.next_restart.max() > losses.shape[1]:
        raise InputError("losses has fewer restarts than were run")
    run = np.arange(losses.shape[1]) < record.next_restart[:, None]
    if not np.isfinite(losses[run]).all():
        raise InputError("losses is not finite where a restart was run")
    hit = broken & run
    first = np.where(hit.any(axis=1), hit.argmax(axis=1), -1) if hit.size else -1
    if np.any(first != record.first_break):
        raise InputError("first_break is not the first restart that broken names")


def _check_settings(record: AttackRecord) -> None:
    settings = from_plain(record.settings, _Settings, source="the settings", extra_keys=True)
    attack = settings.attack
    if attack:  # a later version may have given attacks more settings
        from_plain(attack, Attack, source="the settings' attack", extra_keys=True)
    if (record.closest is None) != (not attack.get("budget")):
        raise InputError("an attack with a budget has the array closest, another has none")
    for name, value in {
        "num_images": len(record.labels),
        "losses": record.losses is not None,
        "adversarial": record.adversarial is not None,
    }.items():
        if name in record.settings and record.settings[name] != value:
            raise InputError(f"the settings say another {name} than the arrays")
