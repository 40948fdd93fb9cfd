"""What an audit found: attacks, indicators, the worst case of every image, and the verdict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import files
from alp_repro.auditing import image_table, junit, model_card
from alp_repro.auditing.schema import SCHEMA_VERSION
from alp_repro.errors import InputError
from alp_repro.evaluation import wilson_interval

if TYPE_CHECKING:
    import pandas

    from alp_repro.auditing.attack_result import AttackResult
    from alp_repro.auditing.planted import PlantedResult
    from alp_repro.auditing.specs import Indicator
    from alp_repro.auditing.votes import Votes
    from alp_repro.evaluation import AttackRecord
    from alp_repro.evaluation.heat_maps import HeatMap
    from alp_repro.evaluation.landscape import Surfaces


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """A verdict on an evaluation, with everything it is based on.

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
      not_measured: why robustness was not measured: attacks would have meant nothing, or none was
        run; None: it was measured.
      left_out: what did not fit into the time, one line each.
      notes: what was done to model and data, one line each.
      votes: of a random model, the passes behind each image's verdict; None: it is not random.
      heat_map, surface, restarts, planted: closer looks; None: they were left out.
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
    votes: Votes | None = None
    heat_map: HeatMap | None = None
    surface: Surfaces | None = None
    restarts: AttackRecord | None = None
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
    def chance_interval(self) -> tuple[float, float] | None:
        """Range of `worst_accuracy` that the passes over a random model allow.

        An image that they leave undecided (`Votes.undecided`) counts as broken at the lower end,
        and as standing at the upper. None: the model is not random, or nothing was measured.
        """
        if self.votes is None or self.not_measured:
            return None
        ends = (self.robust & ~self.votes.undecided, self.robust | self.votes.undecided)
        return float(ends[0].mean()), float(ends[1].mean())

    @property
    def default_accuracy(self) -> float | None:
        """Share that the evaluation under audit leaves; None: it was not run."""
        return self.accuracy_of(self.attacks[0]) if self.attacks else None

    @property
    def raised(self) -> tuple[Indicator, ...]:
        """The indicators that are raised."""
        return tuple(one for one in self.indicators if one.raised)

    def accuracy_of(self, attack: AttackResult) -> float:
        """Return the share of images that an attack leaves, those it was not run on included."""
        return (int(self.correct.sum()) - int(attack.broken.sum())) / len(self.labels)

    def accuracy_alone(self, attack: AttackResult) -> float | None:
        """Return `accuracy_of` an attack; None: only images that still stood were attacked."""
        return self.accuracy_of(attack) if attack.phase.on == "all" else None

    def worst_after(self, count: int) -> float:
        """Return the share of all images that the first `count` attacks together leave."""
        left = self.correct & ((self.broken_by < 0) | (self.broken_by >= count))
        return float(left.mean())

    def interval(self, accuracy: float) -> tuple[float, float]:
        """Return the 95% Wilson interval of a share of these images."""
        return wilson_interval(round(accuracy * len(self.labels)), len(self.labels))

    @property
    def verdict(self) -> str:
        """The verdict in a few sentences."""
        worst = self.worst_accuracy
        if worst is None:
            return f"Robustness was not measured: {self.not_measured}. {self._raised_words()}"
        if not self.attacks:
            return f"No attack was run: no image is classified correctly. {self._raised_words()}"
        default = self.accuracy_of(self.attacks[0])
        sentences = [
            f"The evaluation under audit leaves {self._with_interval(default)}.",
            f"At most {self._with_interval(worst)} survives all attacks.",
            *self._chance_words(),
        ]
        points = round((default - worst) * 100)
        if any(one.key == "overestimate" for one in self.raised):
            sentences.append(f"The evaluation overestimates by {points} points.")
        sentences.append(self._raised_words())
        return " ".join(sentences)

    def _chance_words(self) -> list[str]:
        ends = self.chance_interval
        if ends is None or self.votes is None:
            return []
        return [
            f"The model is random: a prediction is what most of {self.votes.passes} passes give. "
            f"Counting undecided images either way, {ends[0]:.1%} to {ends[1]:.1%} survives."
        ]

    def _raised_words(self) -> str:
        if not self.raised:
            bound = "; the number is still an upper bound" if not self.not_measured else ""
            return f"Nothing raised{bound}."
        # The overestimate has a sentence of its own.
        others = [one for one in self.raised if one.key != "overestimate"]
        words = "; ".join(f"{one.title} ({one.saw})" for one in others)
        return f"Raised: {words or self.raised[0].title}."

    def _with_interval(self, accuracy: float) -> str:
        low, high = self.interval(accuracy)
        return f"{accuracy:.1%} [{low * 100:.1f}, {high * 100:.1f}]"

    def save(self, path: str | Path) -> None:
        """Write the page, the numbers, or another form of the audit, by the path's ending.

        `.html`: the page; `.json`: the numbers, see `schema`; `.csv`: the table of images, see
        `image_table`; `.npz`: the adversarial images; `.xml`: JUnit, see `junit`; `.md`: a model
        card, see `model_card`.

        Raises:
          InputError: another ending, a file that cannot be written, or a `.md` file that is not a
            model card of an audit.
        """
        path = files.expanded(path)
        if path.suffix == ".html":
            from alp_repro.auditing.page import render

            files.write_text(path, render(self))
        elif path.suffix == ".json":
            files.write_json(path, self.to_json())
        elif path.suffix == ".csv":
            files.write_text(path, image_table.to_csv(self))
        elif path.suffix == ".npz":
            files.write_arrays(path, self.adversarial_arrays(), eps_255=self.eps * 255)
        elif path.suffix == ".xml":
            files.write_text(path, junit.to_junit(self))
        elif path.suffix == ".md":
            model_card.write_model_card(path, self)
        else:
            raise InputError(
                f"audit {path}: expected a name ending in .html, .json, .csv, .npz, .xml or .md"
            )

    def to_dataframe(self) -> pandas.DataFrame:
        """Return a row per image: which attack broke it and at which cost; see `image_table`.

        Raises:
          InputError: pandas is not installed.
        """
        return image_table.to_dataframe(self)

    def __repr__(self) -> str:
        """One line: the model, the images, ε and the verdict."""
        of = f" of {self.settings['model']}" if "model" in self.settings else ""
        return f"<Audit{of}: {len(self.labels)} images, eps={self.eps * 255:g}. {self.verdict}>"

    def _repr_html_(self) -> str:
        """Return what a notebook displays: the verdict, the attacks and the raised indicators."""
        from alp_repro.auditing.page import render_summary

        return render_summary(self)

    def adversarial_arrays(self) -> dict[str, np.ndarray]:
        """Return the images before and after the attacks, as leaderboards ask for them.

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
        """Return everything but images and pictures as plain data; see `schema.audit_schema`.

        Sizes are on the 0-255 scale, except in the settings of attacks, which are `Attack`'s own.
        Accuracies that were not measured are None.
        """
        worst = self.worst_accuracy
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "measured": worst is not None,
            "not_measured": self.not_measured,
            "eps": self.eps * 255,
            "images": len(self.labels),
            "clean_accuracy": self.clean_accuracy,
            "default_accuracy": self.default_accuracy,
            "worst_accuracy": worst,
            "worst_interval": None if worst is None else list(self.interval(worst)),
            "passes": None if self.votes is None else self.votes.passes,
            "chance_interval": None if self.chance_interval is None else list(self.chance_interval),
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
            "accuracy": self.accuracy_alone(one),
            "worst_so_far": self.worst_after(place + 1),
            "gradients": one.spent if one.unit == "gradients" else 0,
            "queries": one.spent if one.unit == "queries" else 0,
            "seconds": round(one.seconds, 1),
        }
