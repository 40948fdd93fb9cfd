"""The work of an audit: stages within a time, each kept in the audit's folder when it is done."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from alp_repro import evaluation, files, runs
from alp_repro.attacks import QUERY_COST, Attack, Ensemble, loss_and_gradient
from alp_repro.auditing import measurements, stages
from alp_repro.auditing.attacked import Attacked
from alp_repro.auditing.folder import claim, read_stage, subject, write_stage
from alp_repro.auditing.kinds import Indicator
from alp_repro.auditing.result import AttackResult, Audit
from alp_repro.auditing.stages import Stage
from alp_repro.auditing.votes import Votes, votes_of
from alp_repro.classifiers.heads import is_graph
from alp_repro.errors import InputError
from alp_repro.evaluation.clean import clean_logits
from alp_repro.models.copies import logits_function
from alp_repro.validation.decoding import from_plain

_MOST_ROUNDS = 20
T = TypeVar("T")


class Work:
    """One audit on its way."""

    def __init__(
        self,
        attacked: Attacked,
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
        """Takes the clean images in; nothing is attacked yet.

        Raises:
          InputError: the folder is another audit's.
        """
        self.images, self.labels, self.attack = images, labels, attack
        self.seed, self.batch_size = seed, batch_size
        self.attacked, self.model, self.report = attacked, attacked.model, report
        # What cannot be taken apart may hold operations that XLA does not know.
        self.jit_compile = None if is_graph(self.model) else False
        self._started, self._seconds = time.monotonic(), seconds
        self.folder = folder
        files.make_folder(folder)
        self.logits = attacked.logits
        self._identity = self._hash_of_everything()
        claim(
            folder,
            subject(self.model, images, labels, attack=attack, seed=seed),
            ours=any(self.kept(path.stem) for path in folder.glob("stages/[!.]*.json")),
        )
        self.predictions, self.votes = self._judged_clean()
        self.correct = self.predictions == labels
        self._found = np.full(len(labels), -1, np.int32)
        self._passes_a_second = 0.0
        self.broken_by = np.full(len(labels), -1)
        self.adversarial = np.zeros_like(images)
        self.attacks: list[AttackResult] = []
        self.left_out: list[str] = []

    def _hash_of_everything(self) -> str:
        """What a kept stage belongs to: the function, the images, the evaluation under audit."""
        digest = hashlib.sha256(runs.weights_hash(self.model).encode())
        # A random model's logits are others each time.
        logits = () if self.attacked.random else (self.logits,)
        for array in (*logits, self.images, self.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        settings = {**self.attack.to_json(), "seed": self.seed}
        digest.update(json.dumps(settings, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def _judged_clean(self) -> tuple[np.ndarray, Votes | None]:
        """Predictions int32 [n] on the clean images; of a random model, the votes for them too."""
        if not self.attacked.random:
            return self.logits.argmax(axis=1).astype(np.int32), None
        counts = self._counted("clean_votes", self.images)
        return counts.argmax(axis=1).astype(np.int32), votes_of(counts, self.labels)

    # --- stages that are kept

    def kept(self, name: str) -> Any | None:
        """What a stage was kept as, None when it was not, or was of another audit."""
        return read_stage(self.folder / "stages" / f"{name}.json", audit=self._identity)

    def once(self, name: str, kind: type[T], compute: Callable[[], T]) -> T:
        """The result of a small stage, plain data of this type: read, or computed and kept."""
        found = self.kept(name)
        if found is not None:
            path = self.folder / "stages" / f"{name}.json"
            return from_plain(found, kind, source=str(path), advice="remove it")
        result = compute()
        self.keep(name, result)
        return result

    def _counted(self, name: str, images: np.ndarray) -> np.ndarray:
        """How many of fresh passes over these images give each class, kept as a stage."""

        def compute() -> list[list[int]]:
            found = self.attacked.fresh_counts(images, batch_size=self.batch_size)
            return list(found.tolist())

        return np.array(self.once(name, list[list[int]], compute))

    def keep(self, name: str, result: Any) -> None:
        """Notes that a stage is done, so that it takes no time again."""
        file = self.folder / "stages" / f"{name}.json"
        write_stage(file, result, audit=self._identity)

    # --- time

    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._started)

    def _needed(self, passes: float, images: int) -> float:
        """Seconds, for so many images and so many passes for each."""
        speed = max(self._passes_a_second, 1e-9)
        return stages.COMPILATION_SECONDS + passes * images / speed

    def fits(self, name: str, title: str, passes: float, images: int) -> bool:
        """Whether a stage is done already or fits into what is left; says so where it does not."""
        if self.kept(name) is not None:
            return True
        needed, left = self._needed(passes, images), self._left()
        if needed <= left:
            return True
        self.left_out.append(
            f"{title}: about {needed / 60:.1f} minutes, {max(left, 0) / 60:.1f} were left"
        )
        return False

    def measure_speed(self, places: np.ndarray, *, blind: bool) -> None:
        """Measure gradients a second on one batch, after a first call that compiles.

        Of a `blind` model, which has none, as many as two forward passes each.
        """
        chosen = np.resize(places, self.batch_size)
        x, y = tf.constant(self.images[chosen]), tf.constant(self.labels[chosen])
        logits = logits_function(self.model)

        @tf.function(autograph=False)
        def gradient(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            value_and_gradient = loss_and_gradient(logits, y, loss="cross_entropy")
            return logits(x) if blind else value_and_gradient(x)[2]

        gradient(x, y)
        started = time.monotonic()
        for _ in range(2):
            np.asarray(gradient(x, y))
        seconds = max(time.monotonic() - started, 1e-6)
        self._passes_a_second = 2 * self.batch_size * (QUERY_COST if blind else 1) / seconds

    def tell_plan(self, plan: Sequence[Stage]) -> None:
        """Says how long it will take; InputError where not even the first stage fits."""
        images = int(self.correct.sum())
        needed = [self._needed(stage.cost, images) for stage in plan]
        self.report(
            f"{images} of {len(self.labels)} images are classified correctly; "
            f"{self._passes_a_second:,.0f} gradients a second; all attacks take "
            f"{sum(needed) / 60:.1f} minutes if nothing breaks, {self._seconds / 60:.1f} are given"
        )
        if self.kept(f"attack_{plan[0].name}") is None and needed[0] > self._left():
            raise InputError(
                f"{self._seconds / 60:.2g} minutes are too few: the evaluation under audit alone "
                f"needs about {needed[0] / 60:.1f}, everything {sum(needed) / 60:.1f}; give more "
                "minutes or fewer images"
            )

    # --- the audit

    def result(self, found: tuple[Indicator, ...]) -> Audit:
        """What has come of it so far."""
        broken = self.broken_by >= 0
        predicted = self._found.copy()
        if broken.any() and not self.attacked.random:
            logits = clean_logits(
                self.attacked.given, self.adversarial[broken], batch_size=self.batch_size
            )
            predicted[broken] = logits.argmax(axis=1)
        return Audit(
            eps=self.attack.eps,
            images=self.images,
            labels=self.labels,
            predictions=self.predictions,
            attacks=tuple(self.attacks),
            indicators=found,
            broken_by=self.broken_by,
            adversarial=self.adversarial,
            found=predicted,
            left_out=tuple(self.left_out),
            votes=self.votes,
        )

    def run(self, stage: Stage) -> None:
        """Runs one attack, if it fits, on the images that are its business."""
        wanted = self.correct & (self.broken_by < 0 if stage.scope == "standing" else True)
        places = np.flatnonzero(wanted)
        name = f"attack_{stage.name}"
        admitted = not self.attacks  # by `tell_plan`, which refuses a time too short for the first
        if len(places) == 0:
            return
        if not admitted and not self.fits(name, stage.title, stage.cost, len(places)):
            return
        follows = stage.attack.needs_gradient
        record = evaluation.evaluate(
            self.model if follows else self.attacked.judge,
            self.images[places],
            self.labels[places],
            attack=stage.attack,
            seed=self.seed + stage.seed_offset,
            batch_size=self.batch_size,
            folder=self.folder / "attacks",
            indices=places,
            save_adversarial=True,
            allow_random=self.attacked.random,
            progress=False,
            jit_compile=self.jit_compile,
        )
        restarts = stage.attack.restarts
        first = np.where(record.first_break < restarts, record.first_break, -1)
        unit = 1 if follows else QUERY_COST
        costs = (record.gradients_spent(restarts) / unit).astype(np.int64)
        spent = int(costs.sum())
        took = float(sum(session.get("seconds", 0.0) for session in record.sessions))
        kept = self.kept(name)
        if kept is None:
            self._learn_speed(int(spent * unit), stage, took, sessions=len(record.sessions))
            self.keep(name, {"broken": int((first >= 0).sum()), "spent": spent, "seconds": took})
        else:  # a record that went on with more restarts has more seconds than this stage took
            took = float(kept.get("seconds", took))
        assert record.adversarial is not None
        self._note(stage, places, first, record.adversarial, costs=costs, seconds=took)

    def run_without_gradient(self, stage: Stage) -> None:
        """The evaluation under audit where it has no gradient to follow: its starts are judged."""
        places = np.flatnonzero(self.correct)
        first, found = measurements.broken_by_starts(
            self.model,
            self.images[places],
            self.labels[places],
            attack=stage.attack,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        self._note(stage, places, first, found, costs=np.zeros(len(places), int), seconds=0.0)

    def _confirmed(
        self, name: str, places: np.ndarray, first: np.ndarray, found: np.ndarray
    ) -> np.ndarray:
        """Return the first breaks, int [k], less those that were luck, as fresh passes tell.

        The votes for what holds are taken in.
        """
        broken = np.flatnonzero(first >= 0)
        if not self.attacked.random or not len(broken):
            return first
        counts = self._counted(f"votes_{name}", found[broken])
        predicted = counts.argmax(axis=1)
        held = predicted != self.labels[places[broken]]
        first = first.copy()
        first[broken[~held]] = -1
        new = held & (self.broken_by[places[broken]] < 0)
        taken = places[broken[new]]
        self._found[taken] = predicted[new]
        assert self.votes is not None
        self.votes = self.votes.with_new(taken, votes_of(counts[new], self.labels[taken]))
        return first

    def _note(
        self,
        stage: Stage,
        places: np.ndarray,
        first: np.ndarray,
        found: np.ndarray,
        *,
        costs: np.ndarray,
        seconds: float,
    ) -> None:
        """Takes in what a stage did to the images at these places."""
        first = self._confirmed(stage.name, places, first, found)
        broken = first >= 0
        new = broken & (self.broken_by[places] < 0)
        self.broken_by[places[new]] = len(self.attacks)
        self.adversarial[places[new]] = found[new]
        self.attacks.append(
            AttackResult(
                stage.name,
                stage.title,
                stage.attack,
                stage.scope,
                places,
                broken,
                first,
                int(costs.sum()),
                seconds,
                costs,
            )
        )
        self.report(
            f"{stage.title}: broke {int(broken.sum())} of {len(places)} images; "
            f"{int((self.correct & (self.broken_by < 0)).sum())} of {len(self.labels)} standing, "
            f"{time.monotonic() - self._started:.0f} s"
        )

    def _learn_speed(self, spent: int, stage: Stage, seconds: float, *, sessions: int) -> None:
        """Take the speed from real work, once there is enough of it to tell.

        Both `spent` and `seconds` are of all sessions of a record: it may have been begun by an
        earlier stage or by a process that was stopped.
        """
        working = seconds - sessions * stages.COMPILATION_SECONDS
        if working > stages.COMPILATION_SECONDS and stage.attack.needs_gradient:
            self._passes_a_second = spent / working

    def further_rounds(self) -> None:
        """More rounds of the strongest attack while they find something and there is time."""
        for number in range(1, _MOST_ROUNDS + 1):
            rounds = [one for one in self.attacks if one.name.startswith("strong")]
            if not rounds or not rounds[-1].broken.any():
                return
            before = len(self.attacks)
            self.run(stages.further_round(number, self.attack.eps))
            if len(self.attacks) == before:
                return
