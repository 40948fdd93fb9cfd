"""What an audit found: attacks, indicators, the worst case of every image, and the verdict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from alp_repro import files
from alp_repro.attacks import QUERY_COST, Attack
from alp_repro.auditing.kinds import Indicator
from alp_repro.auditing.planted import PlantedResult
from alp_repro.errors import InputError
from alp_repro.evaluation import wilson_interval
from alp_repro.evaluation.heat_maps import HeatMap


@dataclasses.dataclass(frozen=True, eq=False)
class AttackResult:
    """What one attack of an audit did.

    Attributes:
      name, title, attack, scope: of its stage.
      attacked: int [k], places of the images that it was run on.
      broken: bool [k].
      first_break: int [k], restart that broke each, -1: none.
      spent: what its record counts, all images together: gradients, a query being half a one.
      seconds: that the attack itself took, in all sessions.
    """

    name: str
    title: str
    attack: Attack
    scope: str
    attacked: np.ndarray
    broken: np.ndarray
    first_break: np.ndarray
    spent: int
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """The loss on planes through `images`: `losses` [k, side, side] in nats within ±`radius`."""

    losses: np.ndarray
    radius: float
    images: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Restarts:
    """Losses [images, restarts] of the default attack, `broken` beside them, and which images."""

    losses: np.ndarray
    broken: np.ndarray
    images: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """A verdict on an evaluation, and everything it rests on.

    Attributes:
      eps: radius on the [0, 1] scale.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      predictions: int32 [n], of the clean images.
      attacks: in the order in which they were run; the first is the evaluation under audit.
      indicators: all of them.
      broken_by: int [n], place in `attacks` of the first that broke a correctly classified image,
        -1: none.
      adversarial: float32 like the images: what broke each; zeros where nothing did.
      found: int32 [n], the prediction on `adversarial`, -1 where there is none.
      not_measured: why nothing can be said about the robustness, where attacks would have meant
        nothing or none was run; None: it was measured.
      left_out: what did not fit into the time, one line each.
      notes: what was done to model and data, one line each.
      heat_map, surface, restarts, planted: what was looked at closely; None: it was not.
      settings: model, data, time and seed as they were given.
      provenance: see `runs.provenance`.
    """

    eps: float
    images: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    attacks: tuple[AttackResult, ...]
    indicators: tuple[Indicator, ...]
    broken_by: np.ndarray
    adversarial: np.ndarray
    found: np.ndarray
    not_measured: str | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    heat_map: HeatMap | None = None
    surface: Surface | None = None
    restarts: Restarts | None = None
    planted: PlantedResult | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def correct(self) -> np.ndarray:
        """Bool [n]: the clean image is classified correctly."""
        return self.predictions == self.labels

    @property
    def robust(self) -> np.ndarray:
        """Bool [n]: classified correctly, and no attack broke it."""
        return self.correct & (self.broken_by < 0)

    @property
    def clean_accuracy(self) -> float:
        """Share of images that are classified correctly."""
        return float(self.correct.mean())

    @property
    def worst_accuracy(self) -> float | None:
        """Share of images that survive every attack: an upper bound of the robust accuracy.

        None: it was not measured; `not_measured` says why.
        """
        return None if self.not_measured else float(self.robust.mean())

    @property
    def default_accuracy(self) -> float | None:
        """Share that the evaluation under audit leaves; None: it was not run."""
        return self.accuracy_of(self.attacks[0]) if self.attacks else None

    @property
    def raised(self) -> tuple[Indicator, ...]:
        """The indicators that are raised."""
        return tuple(one for one in self.indicators if one.raised)

    def accuracy_of(self, attack: AttackResult) -> float:
        """What one attack alone leaves, of all images; those it was not run on count as left."""
        return (int(self.correct.sum()) - int(attack.broken.sum())) / len(self.labels)

    def worst_after(self, count: int) -> float:
        """What the first so many attacks together leave, of all images."""
        left = self.correct & ((self.broken_by < 0) | (self.broken_by >= count))
        return float(left.mean())

    def interval(self, accuracy: float) -> tuple[float, float]:
        """The 95% Wilson interval of a share of these images."""
        return wilson_interval(round(accuracy * len(self.labels)), len(self.labels))

    @property
    def verdict(self) -> str:
        """The verdict in a few plain sentences."""
        worst = self.worst_accuracy
        if worst is None:
            return f"Robustness was not measured: {self.not_measured}. {self._raised_words()}"
        if not self.attacks:
            return f"No attack was run: no image is classified correctly. {self._raised_words()}"
        default = self.accuracy_of(self.attacks[0])
        sentences = [
            f"The evaluation under audit leaves {self._with_interval(default)}.",
            f"At most {self._with_interval(worst)} survives all attacks.",
        ]
        points = round((default - worst) * 100)
        if any(one.key == "overestimate" for one in self.raised):
            sentences.append(f"The evaluation overestimates by {points} points.")
        sentences.append(self._raised_words())
        return " ".join(sentences)

    def _raised_words(self) -> str:
        if not self.raised:
            bound = "; the number is an upper bound all the same" if not self.not_measured else ""
            return f"Nothing raised{bound}."
        # The overestimate has a sentence of its own.
        others = [one for one in self.raised if one.key != "overestimate"]
        words = "; ".join(f"{one.title} ({one.saw})" for one in others)
        return f"Raised: {words or self.raised[0].title}."

    def _with_interval(self, accuracy: float) -> str:
        low, high = self.interval(accuracy)
        return f"{accuracy:.1%} [{low * 100:.1f}, {high * 100:.1f}]"

    def save(self, path: str | Path) -> None:
        """Writes the page (`.html`), the numbers (`.json`) or the adversarial images (`.npz`).

        Raises InputError for another ending, or when the file cannot be written.
        """
        path = files.expanded(path)
        if path.suffix == ".html":
            from alp_repro.auditing.page import render

            files.write_text(path, render(self))
        elif path.suffix == ".json":
            files.write_json(path, self.to_json())
        elif path.suffix == ".npz":
            files.write_arrays(path, self.adversarial_arrays(), eps_255=self.eps * 255)
        else:
            raise InputError(f"audit {path}: a file ending in .html, .json or .npz is needed")

    def adversarial_arrays(self) -> dict[str, np.ndarray]:
        """Return the images that broke, as leaderboards ask for them.

        Where the robustness was not measured, `not_measured` says why and `robust_accuracy` is NaN.
        """
        broken = self.correct & (self.broken_by >= 0)
        worst = np.nan if self.worst_accuracy is None else self.worst_accuracy
        return {
            "images": self.images,
            "adversarial": np.where(broken[:, None, None, None], self.adversarial, self.images),
            "labels": self.labels,
            "clean_predictions": self.predictions,
            "adversarial_predictions": np.where(broken, self.found, self.predictions),
            "eps": np.float64(self.eps),
            "robust_accuracy": np.float64(worst),
            "not_measured": np.array(self.not_measured or ""),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything but images and pictures as plain data; sizes on the 0-255 scale.

        Accuracies that were not measured are None.
        """
        worst = self.worst_accuracy
        return {
            "verdict": self.verdict,
            "measured": worst is not None,
            "not_measured": self.not_measured,
            "eps": self.eps * 255,
            "images": len(self.labels),
            "clean_accuracy": self.clean_accuracy,
            "default_accuracy": self.default_accuracy,
            "worst_accuracy": worst,
            "worst_interval": None if worst is None else list(self.interval(worst)),
            "raised": [one.key for one in self.raised],
            "indicators": [dataclasses.asdict(one) for one in self.indicators],
            "attacks": [self._attack_json(i, one) for i, one in enumerate(self.attacks)],
            "broken_by": self.broken_by.tolist(),
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "unit_test": None if self.planted is None else dataclasses.asdict(self.planted),
            "settings": self.settings,
            **self.provenance,
        }

    def _attack_json(self, place: int, one: AttackResult) -> dict[str, Any]:
        return {
            "name": one.name,
            "title": one.title,
            "settings": one.attack.to_json(),
            "attacked": len(one.attacked),
            "broken": int(one.broken.sum()),
            "accuracy": self.accuracy_of(one) if one.scope == "correct" else None,
            "worst_so_far": self.worst_after(place + 1),
            "gradients": one.spent if one.attack.needs_gradient else 0,
            "queries": 0 if one.attack.needs_gradient else int(one.spent / QUERY_COST),
            "seconds": round(one.seconds, 1),
        }
