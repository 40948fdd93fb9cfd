"""What an audit looks at beside its attacks: each function measures, and an indicator judges.

Each takes a `Work` and the places of the correctly classified images; `blind`: the model has no
gradient.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from alp_repro import evaluation
from alp_repro.attacks import PGD, GradientAttack
from alp_repro.auditing import indicators as judge
from alp_repro.auditing import kinds, measurements, planted, stages
from alp_repro.auditing.kinds import Indicator
from alp_repro.auditing.result import Restarts, Surface
from alp_repro.auditing.work import Work
from alp_repro.errors import NoGradientError
from alp_repro.evaluation.clean import clean_logits
from alp_repro.evaluation.heat_maps import HeatMap, heat_map
from alp_repro.evaluation.landscape import Plane, loss_surfaces
from alp_repro.evaluation.model_check import check_gradient
from alp_repro.models.copies import float32_model

if TYPE_CHECKING:
    import keras

    from alp_repro.attacks import Attack, Ensemble

_PROBE_IMAGES = 200
_UNBOUNDED_IMAGES = 50
_PLANTED_IMAGES = 32
_GRID_IMAGES = 100
_HISTOGRAM_IMAGES = 4
_HISTOGRAM_RESTARTS = 25
_SURFACE_SIDE = 41
_SURFACE_IMAGES = 4


def is_blind(work: Work, places: np.ndarray) -> bool:
    """Whether an evaluation that follows gradients would refuse the model for having none.

    Raises:
      InputError: it would refuse the model for something else.
    """
    attack = stages.default_attack(work.attack.eps)  # whichever attack is audited
    try:
        check_gradient(work.model, work.images[places], work.labels[places], attack)
    except NoGradientError:
        return True
    return False


def gradients(work: Work, places: np.ndarray, *, blind: bool) -> list[Indicator]:
    """What gradients there are at random starts, and how steady the loss is."""
    chosen = places[:_PROBE_IMAGES]
    x, y = work.images[chosen], work.labels[chosen]
    shares = work.once(
        "gradients",
        measurements.Numbers,
        lambda: measurements.gradients_at_starts(
            work.model, x, y, eps=work.attack.eps, seed=work.seed, batch_size=work.batch_size
        ),
    )
    constant = bool((work.logits == work.logits[:1]).all())
    margin = 1.0 if blind else shares["margin"]
    none = judge.no_gradient(margin, shares["unavailable"], constant=constant)
    if blind:
        return [
            none,
            kinds.ZERO_GRADIENTS.not_judged(none.title),
            kinds.UNSTABLE.not_judged(none.title),
        ]
    change = work.once(
        "instability",
        measurements.Numbers,
        lambda: _instability(work, x, y),
    )
    return [
        none,
        judge.zero_gradients(shares["cross_entropy"]),
        judge.unstable_gradients(change["mean_change"]),
    ]


def _instability(work: Work, x: np.ndarray, y: np.ndarray) -> measurements.Numbers:
    """How unsteady the loss is, less what a random model's loss changes at one point."""
    radii = [measurements.STABILITY_RADIUS, *([0.0] if work.attacked.random else [])]
    changes = [
        measurements.instability(
            work.model, x, y, seed=work.seed, batch_size=work.batch_size, radius=radius
        )["mean_change"]
        for radius in radii
    ]
    return {"mean_change": max(0.0, changes[0] - sum(changes[1:]))}


def way(work: Work, places: np.ndarray, *, blind: bool) -> list[Indicator]:
    """The way of the default attack's first restart, and what more iterations break."""
    attack = work.attack
    plain = isinstance(attack, PGD) and attack.target == "none" and not attack.momentum
    if blind or not isinstance(attack, PGD) or not plain or attack.draws_noise:
        why = _why(blind) if blind else "the evaluation under audit is no plain PGD"
        return [kind.not_judged(why) for kind in (kinds.FORGOTTEN, kinds.INCOMPLETE)]
    chosen = places[:_PROBE_IMAGES]

    def compute() -> measurements.Numbers:
        way = measurements.way_of_an_attack(
            work.model,
            work.images[chosen],
            work.labels[chosen],
            attack=attack,
            seed=work.seed,
            batch_size=work.batch_size,
        )
        return measurements.of_way(*way)

    seen = work.once("way", measurements.Numbers, compute)
    forgotten = judge.forgotten_success(seen["forgotten"])
    if attack.success == "any":
        forgotten = kinds.FORGOTTEN.not_judged("every iterate is judged")
    if work.attacked.random:
        forgotten = kinds.FORGOTTEN.not_judged("chance decides about an iterate near the boundary")
    broken = {one.name: int(one.broken.sum()) for one in work.attacks}
    more = None
    if {"default", "iterations"} <= broken.keys():
        more = (broken["iterations"] - broken["default"]) / len(work.labels)
    elif work.attacked.random:  # the largest of many noisy losses rises without end
        return [forgotten, kinds.INCOMPLETE.not_judged("chance decides whether a loss rises")]
    return [forgotten, judge.incomplete(seen["still_rising"], seen["standing"], more=more)]


def unbounded(work: Work, places: np.ndarray, *, blind: bool) -> Indicator:
    """An attack that may change everything."""
    if blind:
        return kinds.UNBOUNDED.not_judged(_why(blind))
    chosen = places[:_UNBOUNDED_IMAGES]
    attack = stages.unbounded_attack()
    if not work.fits("unbounded", "An unbounded attack", attack.gradients, len(chosen)):
        return kinds.UNBOUNDED.not_judged("no time was left")

    left = work.once("unbounded", int, lambda: left_standing(work, chosen, attack))
    return judge.unbounded_fails(left, len(chosen))


def left_standing(work: Work, places: np.ndarray, attack: Attack | Ensemble) -> int:
    """Return how many of the images at these places an attack leaves; nothing is kept."""
    record = evaluation.evaluate(
        work.model,
        work.images[places],
        work.labels[places],
        attack=attack,
        seed=work.seed,
        batch_size=min(work.batch_size, len(places)),
        allow_random=work.attacked.random,
        jit_compile=work.jit_compile,
        progress=False,
    )
    return int(record.standing.sum())


def unit_test(
    work: Work, features: keras.Model, places: np.ndarray
) -> planted.PlantedResult | None:
    """Planted examples; None where they cannot be or do not fit."""
    chosen = places[:_PLANTED_IMAGES]
    attack = work.attack
    if not isinstance(attack, GradientAttack) or attack.draws_noise:
        return None
    cost = planted.gradients(attack)
    if not work.fits("planted_examples", "The attack unit test", cost, len(chosen)):
        return None

    def compute() -> dict[str, int]:
        found = planted.planted_examples(
            features,
            work.images[chosen],
            attack=attack,
            seed=work.seed,
            batch_size=len(chosen),
        )
        return dataclasses.asdict(found)

    return planted.PlantedResult(**work.once("planted_examples", dict[str, int], compute))


def of_restarts(work: Work, *, blind: bool) -> Indicator:
    """The default attack's restarts."""
    found = [one for one in work.attacks if one.name == "restarts"]
    if blind or not found:
        return kinds.RESTARTS.not_judged(_why(blind))
    one = found[0]
    return judge.restarts(one.first_break, one.attack.restarts, len(work.labels))


def black_box(work: Work) -> Indicator:
    """Square on what gradients left."""
    found = [one for one in work.attacks if one.name == "square"]
    if not found:
        standing = bool((work.correct & (work.broken_by < 0)).any())
        return kinds.BLACK_BOX.not_judged(_why(False) if standing else "no image was left standing")
    return judge.black_box_stronger(
        int(found[0].broken.sum()), len(found[0].attacked), int(work.correct.sum())
    )


def _stepping(attack: Attack | Ensemble) -> PGD:
    """The evaluation under audit, or the usual one where it has no step size."""
    return attack if isinstance(attack, PGD) else stages.default_attack(attack.eps)


def grid(work: Work, places: np.ndarray) -> HeatMap | None:
    """A small heat map around the default attack; None: there is no time for it."""
    eps, default = work.attack.eps, _stepping(work.attack)
    steps = sorted({min(default.eps_iter, eps), eps / 10, eps / 3, eps})
    counts = sorted({10, default.nb_iter, 100})
    plain = PGD(eps=eps, eps_iter=eps, nb_iter=1, loss=default.loss)
    chosen = places[:_GRID_IMAGES]
    if not work.fits("grid", "The heat map", len(steps) * max(counts), len(chosen)):
        return None
    work.report("heat map of step sizes and iterations")
    found = heat_map(
        work.model,
        work.images[chosen],
        work.labels[chosen],
        attack=plain,
        eps_iters=steps,
        nb_iters=counts,
        seed=work.seed,
        batch_size=min(work.batch_size, len(chosen)),
        folder=work.folder / "heat_maps",
        jit_compile=work.jit_compile,
    )
    work.keep("grid", {"columns": found.columns})
    return found


def _interesting(work: Work) -> np.ndarray:
    """Places of images, those first that the default attack left and a later one broke."""
    order = np.where(work.broken_by > 0, 0, np.where(work.broken_by < 0, 1, 2))
    order = np.where(work.correct, order, 3)
    return np.argsort(order, kind="stable")[: int(work.correct.sum())]


def surface(work: Work) -> Surface:
    """The loss around the images that tell most."""
    places = _interesting(work)[:_SURFACE_IMAGES]
    found = loss_surfaces(
        work.model,
        work.images[places],
        work.labels[places],
        plane=Plane(radius=work.attack.eps, resolution=_SURFACE_SIDE),
        indices=places,
        batch_size=max(work.batch_size, 1),
        jit_compile=work.jit_compile,
    )
    return Surface(found.losses, work.attack.eps, places)


def histograms(work: Work) -> Restarts | None:
    """Losses of many restarts of the default attack; None where they do not fit."""
    places = _interesting(work)[:_HISTOGRAM_IMAGES]
    attack = dataclasses.replace(work.attack, restarts=_HISTOGRAM_RESTARTS)
    if not work.fits("histograms", "Histograms", attack.gradients, len(places)):
        return None
    record = evaluation.evaluate(
        work.model,
        work.images[places],
        work.labels[places],
        attack=attack,
        seed=work.seed,
        batch_size=work.batch_size,
        folder=work.folder / "attacks",
        indices=places,
        record_losses=True,
        allow_random=work.attacked.random,
        jit_compile=work.jit_compile,
        progress=False,
    )
    assert record.losses is not None and record.broken is not None
    work.keep("histograms", {"images": places.tolist()})
    return Restarts(record.losses, record.broken, places)


def judge_disagrees(work: Work, found: np.ndarray) -> Indicator:
    """The model as it was given against its float32 copy, on clean images and on what broke.

    `found`: int [n], the given model's predictions on the adversarial images.
    """
    if work.attacked.random:
        return kinds.JUDGE.not_judged("each pass over a random model has its own verdict")
    given = work.attacked.given
    copy = float32_model(given)
    if copy is given:
        return kinds.JUDGE.judged(False, "they are one model, in float32")
    broken = work.broken_by >= 0
    images = np.concatenate([work.images, work.adversarial[broken]])
    theirs = np.concatenate([work.predictions, found[broken]])
    ours = clean_logits(copy, images, batch_size=work.batch_size).argmax(axis=1)
    return judge.judge_disagrees(float((ours != theirs).mean()))


def _why(blind: bool) -> str:
    return "there is no gradient to follow" if blind else "it was left out"


def of_grid(grid: HeatMap | None, work: Work, *, blind: bool) -> Indicator:
    """The default attack's cell against the best one."""
    if grid is None:
        return kinds.STEP_SIZE.not_judged(_why(blind))
    if not isinstance(work.attack, PGD):
        return kinds.STEP_SIZE.not_judged("the evaluation under audit has no step size")
    accuracy, default = grid.accuracy, _stepping(work.attack)
    row = int(np.argmin(np.abs(grid.eps_iters - default.eps_iter)))
    column = int(np.argmin(np.abs(grid.nb_iters - default.nb_iter)))
    best = np.unravel_index(int(np.argmin(accuracy)), accuracy.shape)
    cell = f"steps of {grid.eps_iters[best[0]] * 255:.3g}, {grid.nb_iters[best[1]]} iterations"
    return judge.step_size(float(accuracy[row, column]), float(accuracy[best]), cell)


def of_unit_test(test: planted.PlantedResult | None, work: Work, *, blind: bool) -> Indicator:
    """How many planted examples were found."""
    if test is not None and not (work.correct & (work.broken_by < 0)).any():
        return kinds.PLANTED.judged(False, "no image is left that attacks could have missed")
    if test is None or not test.images:
        return kinds.PLANTED.not_judged(
            _why(True)
            if blind
            else "the model has no features that a last layer stands on, or no time was left"
        )
    return judge.unit_test(test)


def overestimate(work: Work) -> Indicator:
    """The evaluation under audit against the worst case."""
    correct, n = int(work.correct.sum()), len(work.labels)
    worst = float((work.correct & (work.broken_by < 0)).mean())
    return judge.overestimate((correct - int(work.attacks[0].broken.sum())) / n, worst)
