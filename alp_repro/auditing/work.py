"""The work of an audit: stages within a time, each kept in the audit's folder when it is done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro import evaluation, files, runs
from alp_repro.attacks import Attack
from alp_repro.auditing import indicators as judge
from alp_repro.auditing import measurements, planted, stages
from alp_repro.auditing.indicators import Indicator
from alp_repro.auditing.result import AttackResult, Audit, Restarts, Surface
from alp_repro.auditing.stages import Stage
from alp_repro.errors import InputError
from alp_repro.evaluation.heat_maps import HeatMap, heat_map
from alp_repro.evaluation.landscape import Plane, loss_surfaces

_PROBE_IMAGES = 200
_UNBOUNDED_IMAGES = 50
_PLANTED_IMAGES = 32
_GRID_IMAGES = 100
_HISTOGRAM_IMAGES = 4
_HISTOGRAM_RESTARTS = 25
_SURFACE_SIDE = 41
_MOST_ROUNDS = 20


class Work:
    """One audit on its way."""

    def __init__(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        attack: Attack,
        classes: int,
        seconds: float,
        folder: Path,
        seed: int,
        batch_size: int,
        report: Callable[[str], None],
    ) -> None:
        """Takes the clean images in; nothing is attacked yet."""
        self.images, self.labels, self.attack = images, labels, attack
        self.seed, self.batch_size = seed, batch_size
        self._model, self._classes, self._report = model, classes, report
        self._started, self._seconds = time.monotonic(), seconds
        self._folder = folder
        files.make_folder(folder)
        self.logits = measurements.clean_logits(model, images, batch_size=batch_size)
        self.predictions = self.logits.argmax(axis=1).astype(np.int32)
        self.correct = self.predictions == labels
        self._identity = self._hash_of_everything()
        self._passes_a_second = 0.0
        self._broken_by = np.full(len(labels), -1)
        self._adversarial = np.zeros_like(images)
        self._attacks: list[AttackResult] = []
        self._left_out: list[str] = []

    def _hash_of_everything(self) -> str:
        """What a kept stage belongs to: the function, the images, the evaluation under audit."""
        digest = hashlib.sha256(runs.weights_hash(self._model).encode())
        for array in (self.logits, self.images, self.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        settings = {**dataclasses.asdict(self.attack), "seed": self.seed}
        digest.update(json.dumps(settings, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    # --- stages that are kept

    def _kept(self, name: str) -> Any | None:
        path = self._folder / "stages" / f"{name}.json"
        if not path.exists():
            return None
        found = files.read_json(path)
        same = isinstance(found, dict) and found.get("audit") == self._identity
        return found.get("result") if same else None

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of a small stage, plain data: read, or computed and kept."""
        result = self._kept(name)
        if result is None:
            result = compute()
            self._keep(name, result)
        return result

    def _keep(self, name: str, result: Any) -> None:
        value = {"audit": self._identity, "result": result}
        files.write_json(self._folder / "stages" / f"{name}.json", value)

    # --- time

    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._started)

    def _needed(self, passes: float, images: int) -> float:
        """Seconds, for so many images and so many passes for each."""
        speed = max(self._passes_a_second, 1e-9)
        return stages.COMPILATION_SECONDS + passes * images / speed

    def _fits(self, name: str, title: str, passes: float, images: int) -> bool:
        """Whether a stage is done already or fits into what is left; says so where it does not."""
        if self._kept(name) is not None:
            return True
        needed, left = self._needed(passes, images), self._left()
        if needed <= left:
            return True
        self._left_out.append(
            f"{title}: about {needed / 60:.1f} minutes, {max(left, 0) / 60:.1f} were left"
        )
        return False

    def _measure_speed(self, places: np.ndarray) -> None:
        """Gradients a second, of one batch, after a first call that compiles."""
        chosen = np.resize(places, self.batch_size)
        x, y = tf.constant(self.images[chosen]), tf.constant(self.labels[chosen])
        logits = measurements.logits_function(self._model)

        @tf.function
        def gradient(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            return measurements.loss_and_gradient(logits, y, loss="cross_entropy")(x)[2]

        gradient(x, y)
        started = time.monotonic()
        for _ in range(2):
            np.asarray(gradient(x, y))
        self._passes_a_second = 2 * self.batch_size / max(time.monotonic() - started, 1e-6)

    def _tell_plan(self, plan: Sequence[Stage]) -> None:
        images = int(self.correct.sum())
        needed = [self._needed(stage.cost, images) for stage in plan]
        self._report(
            f"{images} of {len(self.labels)} images are classified correctly; "
            f"{self._passes_a_second:,.0f} gradients a second; all attacks take "
            f"{sum(needed) / 60:.1f} minutes if nothing breaks, {self._seconds / 60:.1f} are given"
        )
        if self._kept("attack_default") is None and needed[0] > self._left():
            raise InputError(
                f"{self._seconds / 60:.2g} minutes are too few: the evaluation under audit alone "
                f"needs about {needed[0] / 60:.1f}, everything {sum(needed) / 60:.1f}; give more "
                "minutes or fewer images"
            )

    # --- the audit

    def not_attacked(self, first: Sequence[Indicator]) -> Audit:
        """The audit where attacks would mean nothing."""
        raised = [one.title for one in first if one.raised]
        why = raised[0] if raised else "no image is classified correctly"
        kinds = (
            judge.NO_GRADIENT, judge.ZERO_GRADIENTS, judge.UNSTABLE, judge.FORGOTTEN,
            judge.INCOMPLETE, judge.UNBOUNDED, judge.RESTARTS, judge.STEP_SIZE, judge.BLACK_BOX,
            judge.PLANTED, judge.OVERESTIMATE,
        )  # fmt: skip
        return self._result(tuple(kind.not_judged(why) for kind in kinds))

    def attacked(self) -> Audit:
        """Runs everything that fits."""
        places = np.flatnonzero(self.correct)
        gradients = self._gradients(places)
        blind = gradients[0].raised
        features = planted.features_of(self._model)
        if blind:
            self._model = measurements.with_zero_gradient(self._model)
        self._measure_speed(places)
        plan = stages.attack_stages(self.attack, classes=self._classes)
        self._tell_plan(plan)
        self._attack(plan[0])
        found = [*gradients, *self._way(places, blind=blind), self._unbounded(places, blind=blind)]
        test = None if blind or features is None else self._unit_test(features, places)
        for stage in plan[1:]:
            if not (blind and stage.attack.method != "square"):
                self._attack(stage)
        self._further_rounds(blind=blind)
        grid = None if blind else self._grid(places)
        found += [
            self._of_restarts(blind=blind),
            _of_grid(grid, self.attack) if grid else judge.STEP_SIZE.not_judged(_why(blind)),
            self._black_box(),
            judge.unit_test(test.found, test.by_chance, test.images)
            if test and test.images
            else judge.PLANTED.not_judged(
                _why(blind) if blind else "the model has no features that a last layer stands on"
            ),
        ]
        worst = float((self.correct & (self._broken_by < 0)).mean())
        default = (int(self.correct.sum()) - int(self._attacks[0].broken.sum())) / len(self.labels)
        found.append(judge.overestimate(default, worst))
        result = self._result(tuple(found))
        return dataclasses.replace(
            result,
            heat_map=grid,
            planted=test,
            surface=None if blind else self._surface(),
            restarts=None if blind else self._histograms(),
        )

    def _result(self, found: tuple[Indicator, ...]) -> Audit:
        broken = self._broken_by >= 0
        predicted = np.full(len(self.labels), -1, np.int32)
        if broken.any():
            logits = measurements.clean_logits(
                self._model, self._adversarial[broken], batch_size=self.batch_size
            )
            predicted[broken] = logits.argmax(axis=1)
        return Audit(
            eps=self.attack.eps,
            images=self.images,
            labels=self.labels,
            predictions=self.predictions,
            attacks=tuple(self._attacks),
            indicators=found,
            broken_by=self._broken_by,
            adversarial=self._adversarial,
            found=predicted,
            left_out=tuple(self._left_out),
        )

    def _attack(self, stage: Stage) -> None:
        """Runs one attack, if it fits, on the images that are its business."""
        wanted = self.correct & (self._broken_by < 0 if stage.scope == "standing" else True)
        places = np.flatnonzero(wanted)
        name = f"attack_{stage.name}"
        if len(places) == 0 or not self._fits(name, stage.title, stage.cost, len(places)):
            return
        started = time.monotonic()
        record = evaluation.evaluate(
            self._model,
            self.images[places],
            self.labels[places],
            attack=stage.attack,
            seed=self.seed + stage.seed_offset,
            batch_size=self.batch_size,
            folder=self._folder / "attacks",
            indices=places,
            save_adversarial=True,
            jit_compile=False,
        )
        restarts = stage.attack.restarts
        first = np.where(record.first_break < restarts, record.first_break, -1)
        spent = int(record.restarts_spent(restarts).sum()) * stage.attack.nb_iter
        took = float(sum(session.get("seconds", 0.0) for session in record.sessions))
        if self._kept(name) is None:
            self._learn_speed(spent, stage, time.monotonic() - started)
            self._keep(name, {"broken": int((first >= 0).sum()), "spent": spent})
        broken = first >= 0
        new = broken & (self._broken_by[places] < 0)
        self._broken_by[places[new]] = len(self._attacks)
        assert record.adversarial is not None
        self._adversarial[places[new]] = record.adversarial[new]
        self._attacks.append(
            AttackResult(
                stage.name, stage.title, stage.attack, stage.scope, places, broken, first, spent,
                took,
            )
        )  # fmt: skip
        self._report(
            f"{stage.title}: broke {int(broken.sum())} of {len(places)} images; "
            f"{int((self.correct & (self._broken_by < 0)).sum())} of {len(self.labels)} standing, "
            f"{time.monotonic() - self._started:.0f} s"
        )

    def _learn_speed(self, spent: int, stage: Stage, seconds: float) -> None:
        """Takes the speed from real work, once there is enough of it to tell."""
        working = seconds - stages.COMPILATION_SECONDS
        if working > stages.COMPILATION_SECONDS and stage.attack.method != "square":
            self._passes_a_second = spent / working

    def _further_rounds(self, *, blind: bool) -> None:
        """More rounds of the strongest attack while they find something and there is time."""
        number = 1
        while not blind and number <= _MOST_ROUNDS and self._attacks[-1].name != "default":
            rounds = [one for one in self._attacks if one.name.startswith("strong")]
            if not rounds or not rounds[-1].broken.any():
                return
            before = len(self._attacks)
            self._attack(stages.further_round(number, self.attack.eps))
            if len(self._attacks) == before:
                return
            number += 1

    # --- indicators

    def _gradients(self, places: np.ndarray) -> list[Indicator]:
        chosen = places[:_PROBE_IMAGES]
        x, y = self.images[chosen], self.labels[chosen]
        shares = self._once(
            "gradients",
            lambda: measurements.gradients_at_starts(
                self._model, x, y, eps=self.attack.eps, seed=self.seed, batch_size=self.batch_size
            ),
        )
        constant = bool((self.logits == self.logits[:1]).all())
        none = judge.no_gradient(shares["margin"], shares["unavailable"], constant=constant)
        if none.raised:
            return [
                none,
                judge.ZERO_GRADIENTS.not_judged(none.title),
                judge.UNSTABLE.not_judged(none.title),
            ]
        change = self._once(
            "instability",
            lambda: measurements.instability(
                self._model, x, y, seed=self.seed, batch_size=self.batch_size
            ),
        )
        return [
            none,
            judge.zero_gradients(shares["cross_entropy"]),
            judge.unstable_gradients(change["mean_change"]),
        ]

    def _way(self, places: np.ndarray, *, blind: bool) -> list[Indicator]:
        kinds = (judge.FORGOTTEN, judge.INCOMPLETE)
        plain = self.attack.method == "pgd" and self.attack.target == "none"
        if blind or not plain or self.attack.momentum or self.attack.gradient_noise:
            why = _why(blind) if blind else "the evaluation under audit is no plain PGD"
            return [kind.not_judged(why) for kind in kinds]
        chosen = places[:_PROBE_IMAGES]

        def compute() -> measurements.Numbers:
            way = measurements.way_of_an_attack(
                self._model, self.images[chosen], self.labels[chosen], attack=self.attack,
                seed=self.seed, batch_size=self.batch_size,
            )  # fmt: skip
            return measurements.of_way(*way)

        seen = self._once("way", compute)
        forgotten = judge.forgotten_success(seen["forgotten"])
        if self.attack.success == "any":
            forgotten = judge.FORGOTTEN.not_judged("every iterate is judged")
        return [forgotten, judge.incomplete(seen["still_rising"], seen["standing"])]

    def _unbounded(self, places: np.ndarray, *, blind: bool) -> Indicator:
        if blind:
            return judge.UNBOUNDED.not_judged(_why(blind))
        chosen = places[:_UNBOUNDED_IMAGES]
        attack = stages.unbounded_attack()
        if not self._fits("unbounded", "An unbounded attack", stages.passes(attack), len(chosen)):
            return judge.UNBOUNDED.not_judged("no time was left")

        def compute() -> int:
            record = evaluation.evaluate(
                self._model, self.images[chosen], self.labels[chosen], attack=attack,
                seed=self.seed, batch_size=min(self.batch_size, len(chosen)), jit_compile=False,
            )  # fmt: skip
            return int(record.standing.sum())

        return judge.unbounded_fails(self._once("unbounded", compute), len(chosen))

    def _unit_test(self, features: keras.Model, places: np.ndarray) -> planted.PlantedResult | None:
        chosen = places[:_PLANTED_IMAGES]
        if self.attack.method not in ("pgd", "apgd") or self.attack.gradient_noise:
            return None
        if not self._fits("planted", "The attack unit test", 3 * self.attack.nb_iter, len(chosen)):
            return None

        def compute() -> dict[str, int]:
            found = planted.planted_examples(
                features, self.images[chosen], attack=self.attack, seed=self.seed,
                batch_size=len(chosen),
            )  # fmt: skip
            return dataclasses.asdict(found)

        return planted.PlantedResult(**self._once("planted", compute))

    def _of_restarts(self, *, blind: bool) -> Indicator:
        found = [one for one in self._attacks if one.name == "restarts"]
        if blind or not found:
            return judge.RESTARTS.not_judged(_why(blind))
        one = found[0]
        return judge.restarts(one.first_break, one.attack.restarts, len(self.labels))

    def _black_box(self) -> Indicator:
        found = [one for one in self._attacks if one.name == "square"]
        if not found:
            return judge.BLACK_BOX.not_judged(
                "no image was left standing" if not self._left_out else _why(False)
            )
        return judge.black_box_stronger(
            int(found[0].broken.sum()), len(found[0].attacked), int(self.correct.sum())
        )

    def _grid(self, places: np.ndarray) -> HeatMap | None:
        """A small heat map around the default attack; None: there is no time for it."""
        eps, default = self.attack.eps, self.attack
        steps = sorted({min(default.eps_iter, eps), eps / 10, eps / 3, eps})
        counts = sorted({10, default.nb_iter, 100})
        plain = Attack(eps=eps, eps_iter=eps, nb_iter=1, loss=default.loss)
        chosen = places[:_GRID_IMAGES]
        if not self._fits("grid", "The heat map", len(steps) * max(counts), len(chosen)):
            return None
        self._report("heat map of step sizes and iterations")
        found = heat_map(
            self._model, self.images[chosen], self.labels[chosen], attack=plain, eps_iters=steps,
            nb_iters=counts, seed=self.seed, batch_size=min(self.batch_size, len(chosen)),
            folder=self._folder / "heat_maps", jit_compile=False,
        )  # fmt: skip
        self._keep("grid", {"columns": found.columns})
        return found

    def _interesting(self) -> np.ndarray:
        """Places of images, those first that the default attack left and a later one broke."""
        order = np.where(self._broken_by > 0, 0, np.where(self._broken_by < 0, 1, 2))
        order = np.where(self.correct, order, 3)
        return np.argsort(order, kind="stable")[: int(self.correct.sum())]

    def _surface(self) -> Surface:
        place = self._interesting()[:1]
        found = loss_surfaces(
            self._model, self.images[place], self.labels[place],
            plane=Plane(radius=self.attack.eps, resolution=_SURFACE_SIDE), indices=place,
            batch_size=max(self.batch_size, 1), jit_compile=False,
        )  # fmt: skip
        return Surface(found.losses[0], self.attack.eps, int(place[0]))

    def _histograms(self) -> Restarts | None:
        places = self._interesting()[:_HISTOGRAM_IMAGES]
        attack = dataclasses.replace(self.attack, restarts=_HISTOGRAM_RESTARTS)
        if not self._fits("histograms", "Histograms", stages.passes(attack), len(places)):
            return None
        record = evaluation.evaluate(
            self._model, self.images[places], self.labels[places], attack=attack, seed=self.seed,
            batch_size=self.batch_size, folder=self._folder / "attacks", indices=places,
            record_losses=True, jit_compile=False,
        )  # fmt: skip
        assert record.losses is not None and record.broken is not None
        self._keep("histograms", {"images": places.tolist()})
        return Restarts(record.losses, record.broken, places)


def _why(blind: bool) -> str:
    return "there is no gradient to follow" if blind else "no time was left"


def _of_grid(grid: HeatMap, attack: Attack) -> Indicator:
    accuracy = grid.accuracy
    row = int(np.argmin(np.abs(grid.eps_iters - attack.eps_iter)))
    column = int(np.argmin(np.abs(grid.nb_iters - attack.nb_iter)))
    best = np.unravel_index(int(np.argmin(accuracy)), accuracy.shape)
    cell = f"steps of {grid.eps_iters[best[0]] * 255:.3g}, {grid.nb_iters[best[1]]} iterations"
    return judge.step_size(float(accuracy[row, column]), float(accuracy[best]), cell)
