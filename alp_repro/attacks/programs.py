"""One batch of work items, compiled: start, craft, project, judge in float32.

A program maps a batch of (image, restart) items to `BatchOutcome`s. Three kinds share that form:
our loop (PGD and APGD), Cleverhans' own `projected_gradient_descent`, and its `spsa`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro import kernels
from alp_repro.attacks.batches import BatchOutcome, Execution, GridOutcome, WorkItems
from alp_repro.attacks.cleverhans_engines import cleverhans_pgd, cleverhans_spsa
from alp_repro.attacks.draws import (
    choose_targets,
    item_noise,
    items_without_noise,
    random_starts,
)
from alp_repro.attacks.pgd import Crafted, Draws, Iterate, PgdRun, run_attack
from alp_repro.attacks.placing import BatchFunction, filled_up, on_replicas
from alp_repro.attacks.rounding import find_rounding
from alp_repro.attacks.settings import Attack, StepSizes
from alp_repro.attacks.square import square_attack
from alp_repro.model_copies import LogitsFunction, copy_weights, crafting_copy, logits_function
from alp_repro.program_cache import kept_for_models

_log = logging.getLogger(__name__)

AttackProgram = Callable[[WorkItems], BatchOutcome]

# Methods that are one function, images in and adversarial images out, with `square_attack`'s
# arguments. A further one is an entry here and a name in `settings.Method` (CONTRIBUTING.md).
OWN_METHODS: dict[str, Callable[..., tf.Tensor]] = {"square": square_attack}


def attack_program(
    model: keras.Model,
    *,
    attack: Attack,
    image_shape: tuple[int, ...],
    seed: int,
    execution: Execution,
) -> AttackProgram:
    """A function of `WorkItems`, as many as `execution.items`, that attacks them.

    It is traced once, also for several attacks on a model that differ in their sizes alone.

    Args:
      model: float32, images to logits.
      attack: settings.
      image_shape: height, width, channels.
      seed: of starts and random targets.
      execution: batch size, replicas, XLA.
    """
    if attack.method == "spsa" or attack.engine == "cleverhans":
        return _eager_program(model, attack, image_shape, seed, execution)
    shape_of_attack = dataclasses.replace(
        attack,
        eps=1.0,
        eps_iter=1.0,
        restarts=1,
        nb_iter=attack.nb_iter if attack.method == "apgd" else 1,
        budget=0,
        search=0,
    )
    program, update = _compiled(model, image_shape, shape_of_attack, seed, execution)
    update()
    sizes = _sizes(attack)
    return lambda items: BatchOutcome(*program(items, sizes))


def grid_program(
    model: keras.Model,
    *,
    attack: Attack,
    image_shape: tuple[int, ...],
    seed: int,
    execution: Execution,
    counts: Sequence[int],
) -> Callable[[WorkItems, float], GridOutcome]:
    """A function of `WorkItems` and a step size that judges an attack after several iterations.

    Args:
      model, image_shape, seed, execution: see `attack_program`.
      attack: one with `iterates_are_results`; the step size and the counts stand for its own.
      counts: numbers of iterations, ascending.
    """
    shape_of_attack = dataclasses.replace(attack, eps=1.0, eps_iter=1.0, restarts=1, nb_iter=1)
    program, update = _compiled(model, image_shape, shape_of_attack, seed, execution, len(counts))
    update()

    def judged(items: WorkItems, eps_iter: float) -> GridOutcome:
        sizes = (np.float32(attack.eps), np.float32(eps_iter), np.array(counts, np.int32))
        return GridOutcome(*program(items, sizes))

    return judged


def iterates_are_results(attack: Attack) -> bool:
    """Whether the k-th iterate of a longer run is what the attack with nb_iter=k ends with.

    With gradient_noise or another schedule it is not: they look at the share of the run that is
    done. A setting that is not known here gets a run for each count.
    """
    harmless = ("loss", "target", "random_start", "dtype", "momentum")
    return not attack.departures(leaving_out=harmless)


def _sizes(attack: Attack) -> tuple[np.ndarray, ...]:
    return np.float32(attack.eps), np.float32(attack.eps_iter), np.int32(attack.nb_iter)


def _signature(image_shape: tuple[int, ...], batch_size: int) -> WorkItems:
    like_images = tf.TensorSpec([batch_size, *image_shape], tf.float32)
    return WorkItems(
        images=like_images,
        labels=tf.TensorSpec([batch_size], tf.int32),
        image_index=tf.TensorSpec([batch_size], tf.int64),
        restart=tf.TensorSpec([batch_size], tf.int32),
        lower=like_images,
        upper=like_images,
    )


@kept_for_models(maxsize=2)
def _compiled(
    model: keras.Model,
    image_shape: tuple[int, ...],
    attack: Attack,
    seed: int,
    execution: Execution,
    counts: int | None = None,
) -> tuple[BatchFunction, Callable[[], None]]:
    """One compiled program for all attacks on a model that differ in their sizes alone.

    With it a function that brings up to date what it holds of the model's weights. The last few
    are kept, since the columns of a table follow each other on one model. `counts` is how many
    iteration counts are judged; None: the last iterate alone.
    """
    source, strategy = model, execution.strategy
    if strategy is not None:
        with strategy.scope():
            model = crafting_copy(source, "float32")
    if attack.dtype == "bfloat16" and not (execution.xla or kernels.multiply_bfloat16()):
        _log.warning(
            "this processor has no instructions that multiply bfloat16 and emulates it, about five "
            "times more slowly than float32; an attack crafted in float32 is a result of its own, "
            "and its accuracy differs by chance alone"
        )
    with strategy.scope() if strategy else nullcontext():
        crafter = crafting_copy(model, attack.dtype) if attack.dtype != "float32" else model
    judge = judge_of(model)
    loop = _Loop(logits_function(crafter), logits_function(model), attack, seed)
    rows = find_rounding(
        source,
        crafter,
        image_shape=image_shape,
        batch_size=execution.batch_size,
        jit_compile=execution.xla,
    ).rows

    def update() -> None:
        for theirs, ours in ((source, model), (model, crafter)):
            if theirs is not ours:
                copy_weights(theirs, ours)

    sizes_spec = [
        *(tf.TensorSpec([], tf.float32), tf.TensorSpec([], tf.float32)),
        tf.TensorSpec([] if counts is None else [counts], tf.int32),
    ]

    @tf.function(
        autograph=False,
        input_signature=[_signature(image_shape, rows), sizes_spec],
        jit_compile=execution.xla,
    )
    def program(items: WorkItems, sizes: Any) -> tuple[tf.Tensor, ...]:
        if counts is None:
            crafted = loop.crafted(items, StepSizes(*sizes))
            return (*judge(crafted.adversarial, items), crafted.nonfinite_gradients)
        return loop.judged_at_counts(items, StepSizes(*sizes), judge)

    def on_one_device(items: WorkItems, sizes: Any) -> list[np.ndarray]:
        return [value.numpy() for value in program(items, list(sizes))]

    run = on_one_device if strategy is None else on_replicas(program, strategy)
    return filled_up(run, items=execution.items, rows=rows * execution.replicas), update


def _eager_program(
    model: keras.Model,
    attack: Attack,
    image_shape: tuple[int, ...],
    seed: int,
    execution: Execution,
) -> AttackProgram:
    """Crafting by Cleverhans' own functions, which are not compiled, and our compiled verdict.

    A gradient of theirs that is not finite ends in an image that is not, which has no verdict.
    """
    engine = cleverhans_spsa if attack.method == "spsa" else cleverhans_pgd
    by_cleverhans = engine(model, attack, seed)
    judge = tf.function(judge_of(model), jit_compile=execution.xla, autograph=False)
    signature = _signature(image_shape, execution.batch_size)

    def program(items: WorkItems) -> BatchOutcome:
        tensors = WorkItems(
            *(tf.constant(v, s.dtype) for v, s in zip(items, signature, strict=True))
        )
        verdict = judge(by_cleverhans(*tensors[:4]), tensors)
        broken, losses, final, finite = (value.numpy() for value in verdict)
        return BatchOutcome(broken, losses, final, finite, np.zeros(len(broken), np.int32))

    return program


_Judge = Callable[[tf.Tensor, WorkItems], tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]]


def judge_of(model: keras.Model) -> _Judge:
    """Return the verdict: float32, on the image as it would be stored, not the crafting model's."""
    logits = logits_function(model)

    def judge(
        crafted: tf.Tensor, items: WorkItems
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        labels = items.labels
        final = tf.clip_by_value(crafted, items.lower, items.upper)
        outputs = logits(final)
        # Of the image before clipping: a minimum may turn what is no number into a bound.
        finite = tf.reduce_all(tf.math.is_finite(crafted), axis=[1, 2, 3])
        finite &= tf.reduce_all(tf.math.is_finite(outputs), axis=1)
        broken = finite & (tf.argmax(outputs, axis=1, output_type=tf.int32) != labels)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=outputs)
        return broken, losses, final, finite

    return judge


class _Loop:
    """Our crafting of a batch: what its items draw, then PGD, APGD or a method of its own."""

    def __init__(
        self,
        crafting_logits: LogitsFunction,
        clean_logits: LogitsFunction,
        attack: Attack,
        seed: int,
    ) -> None:
        self._crafting_logits, self._clean_logits = crafting_logits, clean_logits
        self._attack, self._seed = attack, seed

    def crafted(self, items: WorkItems, sizes: StepSizes) -> Crafted:
        """What one run ends with."""
        attack, draws = self._attack, self._draws(items, sizes)
        if own_method := OWN_METHODS.get(attack.method):
            found = own_method(
                self._crafting_logits,
                items.images,
                items.labels,
                eps=sizes.eps,
                nb_iter=sizes.nb_iter,
                loss=attack.loss,
                targets=draws.targets,
                **self._of_item(items),
            )
            return Crafted(found, tf.zeros_like(items.labels))
        return run_attack(
            self._crafting_logits,
            items.images,
            items.labels,
            attack=attack,
            draws=draws,
            sizes=sizes,
        )

    def judged_at_counts(
        self, items: WorkItems, sizes: StepSizes, judge: _Judge
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The verdicts on one run after each of `sizes.nb_iter` counts; see `GridOutcome`."""
        run = PgdRun(
            self._crafting_logits,
            items.images,
            items.labels,
            self._attack,
            self._draws(items, sizes),
            sizes,
        )
        counts = tf.convert_to_tensor(sizes.nb_iter)
        batch = items.labels.shape[0]
        verdicts = [
            tf.TensorArray(tf.bool, counts.shape[0], element_shape=[batch]) for _ in range(2)
        ]

        def to_next_count(j: tf.Tensor, iterate: Iterate, *verdicts: tf.TensorArray) -> tuple:
            iterate = run.advance(iterate, counts[j])
            broken, _, _, finite = judge(run.result(iterate).adversarial, items)
            return j + 1, iterate, verdicts[0].write(j, broken), verdicts[1].write(j, finite)

        _, last, *verdicts = tf.while_loop(
            lambda j, *_: j < counts.shape[0],
            to_next_count,
            (tf.constant(0), run.first(), *verdicts),
            parallel_iterations=1,
        )
        broken, finite = (tf.transpose(verdict.stack()) for verdict in verdicts)
        return broken, finite, last.nonfinite_gradients

    def _draws(self, items: WorkItems, sizes: StepSizes) -> Draws:
        attack, of_item = self._attack, self._of_item(items)
        starts, targets, noise = items.images, None, None
        if attack.random_start:
            starts = random_starts(items.images, eps=sizes.eps, **of_item)
        if attack.target != "none":
            targets = choose_targets(
                attack.target,
                clean_logits=self._clean_logits(items.images),
                labels=items.labels,
                **of_item,
            )
        if attack.gradient_noise:
            noise = item_noise(tuple(items.images.shape[1:]), **of_item)
        return Draws(starts, targets, noise, items_without_noise(attack.target, items.restart))

    def _of_item(self, items: WorkItems) -> dict[str, tf.Tensor]:
        """What random numbers depend on."""
        seed = tf.constant(self._seed)
        return {"image_index": items.image_index, "restart": items.restart, "seed": seed}
