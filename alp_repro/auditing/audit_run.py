"""An audit while it runs: its phases within a time limit, each saved in the folder when done."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from alp_repro import evaluation, files
from alp_repro.attacks import QUERY_COST, Attack, Ensemble, Phase, loss_and_gradient
from alp_repro.auditing import plan
from alp_repro.auditing.attack_result import AttackResult
from alp_repro.auditing.folder import SavedResults, claim, subject
from alp_repro.auditing.model_under_audit import ModelUnderAudit
from alp_repro.auditing.result import Audit
from alp_repro.auditing.specs import Indicator
from alp_repro.auditing.votes import Votes, votes_of
from alp_repro.classifiers.heads import is_graph
from alp_repro.errors import InputError, NoGradientError
from alp_repro.evaluation import AttackRecord
from alp_repro.evaluation.clean import clean_logits
from alp_repro.evaluation.model_check import check_gradient
from alp_repro.models.copies import logits_function

# What tracing and compiling one more program takes, roughly.
COMPILATION_SECONDS = 4.0
_MOST_ROUNDS = 20


class AuditRun:
    """The state of one audit: the images, what broke them so far, and the time that is left.

    Attributes:
      correct: bool [n], the model classifies the clean image correctly.
      broken_by: int [n], place in `attacks` of the first that broke a correct image, -1: none.
      adversarial: float32 like the images: what broke each; zeros where nothing did.
      attacks: what each phase did, in order; the first is the evaluation under audit.
      left_out: what did not fit into the time, one line each.
      saved: results of steps that are done, which take no time again.
      votes: of a random model, the passes behind each image's verdict.
    """

    def __init__(
        self,
        model: ModelUnderAudit,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        attack: Attack | Ensemble,
        seconds: float,
        folder: Path,
        seed: int,
        batch_size: int,
        report: Callable[[str], None],
    ) -> None:
        """Claim the folder and classify the clean images; nothing is attacked yet.

        Raises:
          InputError: the folder is another audit's.
        """
        self.model, self.images, self.labels, self.attack = model, images, labels, attack
        self.seed, self.batch_size, self.report = seed, batch_size, report
        # What cannot be taken apart may hold operations that XLA does not know.
        self.jit_compile = None if is_graph(model.white_box) else False
        self._started, self._seconds = time.monotonic(), seconds
        self._gradients_a_second = 0.0
        self.folder = folder
        files.make_folder(folder)
        identity = subject(model.white_box, images, labels, attack=attack, seed=seed)
        claim(folder, identity)
        # A random model's logits are others each time.
        self.saved = SavedResults(folder, identity, None if model.random else model.logits)
        self.predictions, self.votes = self._classify()
        self.correct = self.predictions == labels
        self._found = np.full(len(labels), -1, np.int32)
        self.broken_by = np.full(len(labels), -1)
        self.adversarial = np.zeros_like(images)
        self.attacks: list[AttackResult] = []
        self.left_out: list[str] = []

    def _classify(self) -> tuple[np.ndarray, Votes | None]:
        """Predictions int32 [n] of the clean images; of a random model, the votes for them too."""
        if not self.model.random:
            return self.model.logits.argmax(axis=1).astype(np.int32), None
        counts = self._fresh_counts("clean_votes", self.images)
        return counts.argmax(axis=1).astype(np.int32), votes_of(counts, self.labels)

    @property
    def standing(self) -> np.ndarray:
        """Bool [n]: classified correctly, and no attack so far has broken it."""
        return self.correct & (self.broken_by < 0)

    @functools.cached_property
    def has_gradient(self) -> bool:
        """True where the model has a gradient that an attack could follow.

        Raises:
          InputError: an evaluation would refuse the model for something else.
        """
        attack = plan.default_attack(self.attack.eps)  # whichever attack is audited
        try:
            check_gradient(self.model.white_box, self.images[self.correct], attack)
        except NoGradientError:
            return False
        return True

    def named(self, name: str) -> AttackResult | None:
        """Return what the phase of this name did; None: it was not run."""
        return next((one for one in self.attacks if one.name == name), None)

    def _fresh_counts(self, name: str, images: np.ndarray) -> np.ndarray:
        """Count the fresh passes over these images that give each class, [n, classes]; saved."""

        def compute() -> list[list[int]]:
            found = self.model.fresh_counts(images, batch_size=self.batch_size)
            return list(found.tolist())

        return np.array(self.saved.once(name, list[list[int]], compute))

    # --- time

    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._started)

    def _needed(self, gradients: float, images: int) -> float:
        """Seconds for this many images, with this many gradients for each."""
        speed = max(self._gradients_a_second, 1e-9)
        return COMPILATION_SECONDS + gradients * images / speed

    def fits(self, name: str, title: str, gradients: float, images: int) -> bool:
        """Return whether a step is saved or fits into the time that is left; note it if not."""
        if self.saved.load(name) is not None:
            return True
        needed, left = self._needed(gradients, images), self._left()
        if needed <= left:
            return True
        self.left_out.append(
            f"{title}: needs about {needed / 60:.1f} minutes, {max(left, 0) / 60:.1f} were left"
        )
        return False

    def measure_speed(self) -> None:
        """Measure gradients per second on one batch, after a first call that compiles.

        Where there is no gradient, a forward pass counts for half a one.
        """
        chosen = np.resize(np.flatnonzero(self.correct), self.batch_size)
        x, y = tf.constant(self.images[chosen]), tf.constant(self.labels[chosen])
        logits = logits_function(self.model.white_box)

        @tf.function(autograph=False)
        def gradient(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            value_and_gradient = loss_and_gradient(logits, y, loss="cross_entropy")
            return value_and_gradient(x)[2] if self.has_gradient else logits(x)

        gradient(x, y)
        started = time.monotonic()
        for _ in range(2):
            np.asarray(gradient(x, y))
        seconds = max(time.monotonic() - started, 1e-6)
        unit = 1 if self.has_gradient else QUERY_COST
        self._gradients_a_second = 2 * self.batch_size * unit / seconds

    def check_time(self, phases: Sequence[Phase]) -> None:
        """Report how long the phases will take.

        Raises:
          InputError: not even the first fits into the time.
        """
        images = int(self.correct.sum())
        needed = [self._needed(phase.attack.gradients, images) for phase in phases]
        self.report(
            f"{images} of {len(self.labels)} images are classified correctly; "
            f"{self._gradients_a_second:,.0f} gradients per second; all attacks take about "
            f"{sum(needed) / 60:.1f} minutes if no image breaks, of {self._seconds / 60:.1f}"
        )
        if self.saved.load(f"attack_{phases[0].name}") is None and needed[0] > self._left():
            raise InputError(
                f"{self._seconds / 60:.2g} minutes are too few: the evaluation under audit alone "
                f"needs about {needed[0] / 60:.1f}, all attacks {sum(needed) / 60:.1f}; give more "
                "minutes or fewer images"
            )

    def _learn_speed(self, spent: float, seconds: float, *, sessions: int) -> None:
        """Take the speed from real work, once there is enough of it.

        Both `spent`, in gradients, and `seconds` are of all sessions of a record: it may have been
        begun by an earlier phase or by a process that was stopped.
        """
        working = seconds - sessions * COMPILATION_SECONDS
        if working > COMPILATION_SECONDS and spent:
            self._gradients_a_second = spent / working

    # --- attacks

    def evaluate(
        self,
        attack: Attack | Ensemble,
        places: np.ndarray,
        *,
        seed: int = 0,
        saved: bool = True,
        save_adversarial: bool = False,
        record_losses: bool = False,
    ) -> AttackRecord:
        """Attack the images at these places; see `evaluation.evaluate`.

        Args:
          attack: followed by the white box where it needs gradients, by the black box otherwise.
          places: int [k].
          seed: added to the audit's.
          saved: keep the record in the audit's folder.
          save_adversarial, record_losses: what else the record holds.
        """
        return evaluation.evaluate(
            self.model.white_box if attack.needs_gradient else self.model.black_box,
            self.images[places],
            self.labels[places],
            attack=attack,
            seed=self.seed + seed,
            batch_size=self.batch_size,
            folder=self.folder / "attacks" if saved else None,
            indices=places,
            allow_random=self.model.random,
            progress=False,
            jit_compile=self.jit_compile,
            save_adversarial=save_adversarial,
            record_losses=record_losses,
        )

    def run(self, phase: Phase) -> bool:
        """Run a phase on its images; return whether there were any and it fitted into the time."""
        places = np.flatnonzero(self.correct if phase.on == "all" else self.standing)
        name = f"attack_{phase.name}"
        admitted = not self.attacks  # by `check_time`
        if not len(places) or not (
            admitted or self.fits(name, phase.title, phase.attack.gradients, len(places))
        ):
            return False
        record = self.evaluate(phase.attack, places, seed=phase.seed, save_adversarial=True)
        seconds = float(sum(session.get("seconds", 0.0) for session in record.sessions))
        before = self.saved.load(name)
        if before is None:
            if phase.attack.needs_gradient:
                spent = float(record.gradients_spent(phase.attack.restarts).sum())
                self._learn_speed(spent, seconds, sessions=len(record.sessions))
            self.saved.save(name, {"seconds": seconds})
        else:  # a record that went on with more restarts has more seconds than this phase took
            seconds = float(before.get("seconds", seconds))
        assert record.adversarial is not None
        # The worst case keeps what it needs of the images.
        result = AttackResult(phase, dataclasses.replace(record, adversarial=None), seconds)
        self._add(self._confirmed(result, record.adversarial), record.adversarial)
        return True

    def _confirmed(self, result: AttackResult, adversarial: np.ndarray) -> AttackResult:
        """Return what a phase did to a random model, less the breaks that were luck.

        Fresh passes over the adversarial images tell, and join the votes, also where the image
        goes on standing.
        """
        broken, places = np.flatnonzero(result.broken), result.attacked
        if self.votes is None or not len(broken):
            return result
        counts = self._fresh_counts(f"votes_{result.name}", adversarial[broken])
        predicted, tried = counts.argmax(axis=1), places[broken]
        confirmed, standing = predicted != self.labels[tried], self.broken_by[tried] < 0
        new = confirmed & standing
        self._found[tried[new]] = predicted[new]
        fresh = votes_of(counts, self.labels[tried])
        # Of an image that goes on standing, those of what came nearest to breaking it.
        joining = standing & (confirmed | (fresh.lead < self.votes.lead[tried]))
        self.votes = self.votes.updated(tried[joining], fresh.at(joining))
        held = np.ones(len(places), bool)
        held[broken] = confirmed
        return dataclasses.replace(result, held=held)

    def _add(self, result: AttackResult, adversarial: np.ndarray) -> None:
        """Add what a phase did to the worst case."""
        places, broken = result.attacked, result.broken
        new = broken & (self.broken_by[places] < 0)
        self.broken_by[places[new]] = len(self.attacks)
        self.adversarial[places[new]] = adversarial[new]
        self.attacks.append(result)
        self.report(
            f"{result.title}: broke {int(broken.sum())} of {len(places)} images; "
            f"{int(self.standing.sum())} of {len(self.labels)} standing, "
            f"{time.monotonic() - self._started:.0f} s"
        )

    def run_further_rounds(self) -> None:
        """Run more rounds of `strong` while they break something and there is time."""
        for number in range(1, _MOST_ROUNDS + 1):
            rounds = [one for one in self.attacks if one.name.startswith("strong")]
            if not rounds or not rounds[-1].broken.any():
                return
            if not self.run(plan.further_round(number, self.attack.eps)):
                return

    def result(self, indicators: tuple[Indicator, ...]) -> Audit:
        """Return the audit as it stands, with these indicators."""
        broken = self.broken_by >= 0
        found = self._found.copy()
        if broken.any() and not self.model.random:
            logits = clean_logits(
                self.model.given, self.adversarial[broken], batch_size=self.batch_size
            )
            found[broken] = logits.argmax(axis=1)
        return Audit(
            eps=self.attack.eps,
            images=self.images,
            labels=self.labels,
            predictions=self.predictions,
            attacks=tuple(self.attacks),
            indicators=indicators,
            broken_by=self.broken_by,
            adversarial=self.adversarial,
            found=found,
            left_out=tuple(self.left_out),
            votes=self.votes,
        )
