"""The checks of an audit beside its attacks: each measures, and `indicators` has the thresholds.

Each takes an `AuditRun` some of whose images are classified correctly.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.attacks import PGD, Attack, Ensemble, GradientAttack
from alp_repro.auditing import indicators, measurements, plan, planted, specs
from alp_repro.auditing.audit_run import AuditRun
from alp_repro.auditing.specs import Indicator
from alp_repro.evaluation import AttackRecord
from alp_repro.evaluation.clean import clean_logits
from alp_repro.evaluation.heat_maps import HeatMap, heat_map
from alp_repro.evaluation.landscape import Plane, Surfaces, loss_surfaces
from alp_repro.models.copies import float32_model

if TYPE_CHECKING:
    import keras

_PROBE_IMAGES = 200
_UNBOUNDED_IMAGES = 50
_PLANTED_IMAGES = 32
_GRID_IMAGES = 100
_HISTOGRAM_IMAGES = 4
_HISTOGRAM_RESTARTS = 25
_SURFACE_SIDE = 41
_SURFACE_IMAGES = 4
NO_GRADIENT = "there is no gradient to follow"
LEFT_OUT = "it was left out"
NO_TIME = "no time was left"


def _correct(run: AuditRun, most: int) -> np.ndarray:
    """Places of the first of the correctly classified images."""
    return np.flatnonzero(run.correct)[:most]


def gradients(run: AuditRun) -> list[Indicator]:
    """Check which gradients there are at random starts, and how steady the loss is."""
    chosen = _correct(run, _PROBE_IMAGES)
    x, y = run.images[chosen], run.labels[chosen]
    model, batch_size = run.model.white_box, run.batch_size
    shares = run.saved.once(
        "gradients",
        measurements.Numbers,
        lambda: measurements.gradients_at_starts(
            model, x, y, eps=run.attack.eps, seed=run.seed, batch_size=batch_size
        ),
    )
    constant = bool((run.model.logits == run.model.logits[:1]).all())
    margin = shares["margin"] if run.has_gradient else 1.0
    none = indicators.no_gradient(margin, shares["unavailable"], constant=constant)
    if not run.has_gradient:
        others = (specs.ZERO_GRADIENTS, specs.UNSTABLE)
        return [none, *(spec.not_judged(none.title) for spec in others)]

    def instability() -> measurements.Numbers:
        """Less what a random model's loss changes at one and the same point."""
        radii = [measurements.STABILITY_RADIUS, *([0.0] if run.model.random else [])]
        changes = [
            measurements.instability(
                model, x, y, seed=run.seed, batch_size=batch_size, radius=radius
            )["mean_change"]
            for radius in radii
        ]
        return {"mean_change": max(0.0, changes[0] - sum(changes[1:]))}

    change = run.saved.once("instability", measurements.Numbers, instability)
    return [
        none,
        indicators.zero_gradients(shares["cross_entropy"]),
        indicators.unstable_gradients(change["mean_change"]),
    ]


def trajectory(run: AuditRun) -> list[Indicator]:
    """Check the iterates of the default attack's first restart, and what more of them break."""
    attack = run.attack
    plain = isinstance(attack, PGD) and attack.target == "none" and not attack.momentum
    if not run.has_gradient or not isinstance(attack, PGD) or not plain or attack.draws_noise:
        why = "the evaluation under audit is not a plain PGD" if run.has_gradient else NO_GRADIENT
        return [spec.not_judged(why) for spec in (specs.FORGOTTEN, specs.INCOMPLETE)]
    chosen = _correct(run, _PROBE_IMAGES)

    def compute() -> measurements.Numbers:
        losses, broken = measurements.trajectory(
            run.model.white_box,
            run.images[chosen],
            run.labels[chosen],
            attack=attack,
            seed=run.seed,
            batch_size=run.batch_size,
        )
        return measurements.trajectory_summary(losses, broken)

    seen = run.saved.once("way", measurements.Numbers, compute)
    forgotten = indicators.forgotten_success(seen["forgotten"])
    if attack.success == "any":
        forgotten = specs.FORGOTTEN.not_judged("the attack checks every iterate")
    if run.model.random:
        forgotten = specs.FORGOTTEN.not_judged("chance decides about an iterate near the boundary")
    default, longer, more = run.attacks[0], run.named("iterations"), None
    if longer is not None:
        more = (int(longer.broken.sum()) - int(default.broken.sum())) / len(run.labels)
    elif run.model.random:  # the largest of many noisy losses rises without end
        return [forgotten, specs.INCOMPLETE.not_judged("chance decides whether a loss rises")]
    return [forgotten, indicators.incomplete(seen["still_rising"], seen["standing"], more=more)]


def unbounded(run: AuditRun) -> Indicator:
    """Check that an attack which may change everything breaks every image."""
    if not run.has_gradient:
        return specs.UNBOUNDED.not_judged(NO_GRADIENT)
    chosen = _correct(run, _UNBOUNDED_IMAGES)
    attack = plan.unbounded_attack()
    if not run.fits("unbounded", "An unbounded attack", attack.gradients, len(chosen)):
        return specs.UNBOUNDED.not_judged(NO_TIME)
    left = run.saved.once("unbounded", int, lambda: left_standing(run, chosen, attack))
    return indicators.unbounded_fails(left, len(chosen))


def left_standing(run: AuditRun, places: np.ndarray, attack: Attack | Ensemble) -> int:
    """Return how many of the images at these places an attack leaves; no record is saved."""
    return int(run.evaluate(attack, places, saved=False).standing.sum())


def unit_test(run: AuditRun, features: keras.Model) -> planted.PlantedResult | None:
    """Plant adversarial examples and look for them; None: not possible, or it does not fit."""
    chosen, attack = _correct(run, _PLANTED_IMAGES), run.attack
    if not isinstance(attack, GradientAttack) or not attack.compiled:
        return None
    cost = planted.cost(attack)
    if not run.fits("planted_examples", "The attack unit test", cost, len(chosen)):
        return None

    def compute() -> dict[str, int]:
        found = planted.planted_examples(
            features,
            run.images[chosen],
            attack=attack,
            seed=run.seed,
            batch_size=len(chosen),
        )
        return dataclasses.asdict(found)

    return planted.PlantedResult(**run.saved.once("planted_examples", dict[str, int], compute))


def planted_examples(run: AuditRun, test: planted.PlantedResult | None) -> Indicator:
    """Check how many planted examples were found."""
    if test is not None and not run.standing.any():
        return specs.PLANTED.indicator(False, "no image is left that attacks could have missed")
    if test is None or not test.images:
        why = "it needs a last layer that is dense, a gradient attack under audit, and time"
        return specs.PLANTED.not_judged(why if run.has_gradient else NO_GRADIENT)
    return indicators.unit_test(test)


def restarts(run: AuditRun) -> Indicator:
    """Check whether further restarts of the default attack go on breaking images."""
    one = run.named("restarts")
    if one is None or not run.has_gradient:
        return specs.RESTARTS.not_judged(LEFT_OUT if run.has_gradient else NO_GRADIENT)
    return indicators.restarts(one.first_break, one.attack.restarts, len(run.labels))


def black_box(run: AuditRun) -> Indicator:
    """Check what Square breaks of the images that gradients left."""
    one = run.named("square")
    if one is None:
        return specs.BLACK_BOX.not_judged(
            LEFT_OUT if run.standing.any() else "no image was left standing"
        )
    return indicators.black_box_stronger(
        int(one.broken.sum()), len(one.attacked), int(run.correct.sum())
    )


def overestimate(run: AuditRun) -> Indicator:
    """Compare the evaluation under audit with the worst case."""
    n = len(run.labels)
    default = (int(run.correct.sum()) - int(run.attacks[0].broken.sum())) / n
    return indicators.overestimate(default, float(run.standing.mean()))


def judge_disagrees(run: AuditRun, found: np.ndarray) -> Indicator:
    """Compare the given model with its float32 copy, on clean images and on what broke.

    `found`: int [n], the given model's predictions on the adversarial images.
    """
    if run.model.random:
        return specs.JUDGE.not_judged("each pass over a random model gives another prediction")
    given = run.model.given
    copy = float32_model(given)
    if copy is given:
        return specs.JUDGE.indicator(False, "they are one model, in float32")
    broken = run.broken_by >= 0
    images = np.concatenate([run.images, run.adversarial[broken]])
    theirs = np.concatenate([run.predictions, found[broken]])
    ours = clean_logits(copy, images, batch_size=run.batch_size).argmax(axis=1)
    return indicators.judge_disagrees(float((ours != theirs).mean()))


# --- a closer look


def _stepping(attack: Attack | Ensemble) -> PGD:
    """Return the evaluation under audit, or the usual one where it has no step size."""
    return attack if isinstance(attack, PGD) else plan.default_attack(attack.eps)


def grid(run: AuditRun) -> HeatMap | None:
    """Make a small heat map around the default attack; None: there is no time for it."""
    eps, default = run.attack.eps, _stepping(run.attack)
    steps = sorted({min(default.eps_iter, eps), eps / 10, eps / 3, eps})
    counts = sorted({10, default.nb_iter, 100})
    chosen = _correct(run, _GRID_IMAGES)
    if not run.fits("grid", "The heat map", len(steps) * max(counts), len(chosen)):
        return None
    run.report("heat map of step sizes and iterations")
    found = heat_map(
        run.model.white_box,
        run.images[chosen],
        run.labels[chosen],
        attack=PGD(eps=eps, eps_iter=eps, nb_iter=1, loss=default.loss),
        eps_iters=steps,
        nb_iters=counts,
        seed=run.seed,
        batch_size=min(run.batch_size, len(chosen)),
        folder=run.folder / "heat_maps",
        jit_compile=run.jit_compile,
    )
    run.saved.save("grid", {"columns": found.columns})
    return found


def step_size(run: AuditRun, grid: HeatMap | None) -> Indicator:
    """Compare the default attack's cell of the heat map with the best one."""
    if grid is None:
        return specs.STEP_SIZE.not_judged(LEFT_OUT if run.has_gradient else NO_GRADIENT)
    if not isinstance(run.attack, PGD):
        return specs.STEP_SIZE.not_judged("the evaluation under audit has no step size")
    accuracy, default = grid.accuracy, run.attack
    row = int(np.argmin(np.abs(grid.eps_iters - default.eps_iter)))
    column = int(np.argmin(np.abs(grid.nb_iters - default.nb_iter)))
    best = np.unravel_index(int(np.argmin(accuracy)), accuracy.shape)
    cell = f"steps of {grid.eps_iters[best[0]] * 255:.3g}, {grid.nb_iters[best[1]]} iterations"
    return indicators.step_size(float(accuracy[row, column]), float(accuracy[best]), cell)


def _most_telling(run: AuditRun, most: int) -> np.ndarray:
    """Places of images, those first that the default attack left and a later one broke."""
    order = np.where(run.broken_by > 0, 0, np.where(run.broken_by < 0, 1, 2))
    order = np.where(run.correct, order, 3)
    return np.argsort(order, kind="stable")[: min(most, int(run.correct.sum()))]


def surface(run: AuditRun) -> Surfaces:
    """Compute the loss on planes through the images that tell most."""
    places = _most_telling(run, _SURFACE_IMAGES)
    return loss_surfaces(
        run.model.white_box,
        run.images[places],
        run.labels[places],
        plane=Plane(radius=run.attack.eps, resolution=_SURFACE_SIDE),
        indices=places,
        batch_size=run.batch_size,
        jit_compile=run.jit_compile,
    )


def histograms(run: AuditRun) -> AttackRecord | None:
    """Record the losses of many restarts of the default attack.

    None: there is no time for it, or the phases of an ensemble are no restarts of one attack.
    """
    if isinstance(run.attack, Ensemble):
        return None
    places = _most_telling(run, _HISTOGRAM_IMAGES)
    attack = dataclasses.replace(run.attack, restarts=_HISTOGRAM_RESTARTS)
    if not run.fits("histograms", "Histograms", attack.gradients, len(places)):
        return None
    record = run.evaluate(attack, places, record_losses=True)
    run.saved.save("histograms", {"images": places.tolist()})
    return record
