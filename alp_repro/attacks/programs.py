"""Compiled programs that attack one batch of work items and classify the results in float32.

A program maps a batch of (image, restart) items to a `BatchOutcome`, for any attack.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro.attacks.base import Attack
from alp_repro.attacks.batches import (
    BatchOutcome,
    CraftItems,
    Execution,
    GridOutcome,
    WorkItems,
    work_items,
)
from alp_repro.attacks.pgd import PGD, Iterate, PgdRun
from alp_repro.attacks.phases import Ensemble, Phase
from alp_repro.attacks.placing import BatchFunction, on_replicas, padded
from alp_repro.attacks.rounding import find_rounding
from alp_repro.models.copies import LogitsFunction, copy_in_dtype, copy_weights, logits_function
from alp_repro.models.program_cache import cached_for_models
from alp_repro.system import kernels

_log = logging.getLogger(__name__)

AttackProgram = Callable[[WorkItems], BatchOutcome]


def attack_program(
    model: keras.Model,
    *,
    attack: Attack,
    image_shape: tuple[int, ...],
    seed: int,
    execution: Execution,
) -> AttackProgram:
    """Return a function that attacks a batch of `WorkItems`, `execution.items` of them.

    Attacks on a model that differ only in their sizes share one trace.

    Args:
      model: float32, images to logits.
      attack: the attack.
      image_shape: height, width, channels.
      seed: seeds the starts and random targets.
      execution: batch size, replicas, XLA.
    """
    if not attack.compiled:
        return _eager_program(model, attack, image_shape, seed, execution)
    program, update = _compiled(model, image_shape, _shape_of(attack), seed, execution)
    update()
    numbers = [_as_array(getattr(attack, name)) for name in attack.tensor_settings]
    return lambda items: BatchOutcome(*program(items, numbers))


def phases_program(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: Ensemble,
    seed: int,
    execution: Execution,
    image_index: np.ndarray | None = None,
) -> Callable[[np.ndarray, np.ndarray], BatchOutcome]:
    """Return a function of image positions and run numbers that attacks a batch of one phase.

    The batch size is that of `execution_of` the phase. A phase is compiled at its first batch.

    Args:
      model: float32, images to logits.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      attack: the ensemble.
      seed, execution: see `attack_program`.
      image_index: int [n], which seeds an image's random numbers; None: its position.
    """

    @functools.cache
    def program(place: int) -> AttackProgram:
        phase = attack.phases[place]
        return attack_program(
            model,
            attack=attack.attacks[place],
            image_shape=images.shape[1:],
            seed=seed + phase.seed,
            execution=execution_of(phase, execution),
        )

    def outcome(image: np.ndarray, run: np.ndarray) -> BatchOutcome:
        place = int(attack.phase_at(run[0]))
        restart = attack.restarts_of(place, run)
        return program(place)(
            work_items(images, labels, image, restart, eps=attack.eps, image_index=image_index)
        )

    return outcome


def execution_of(phase: Phase, execution: Execution) -> Execution:
    """Return how a phase's batches are computed; small ones run on one device."""
    if phase.batch_size is None:
        return execution
    return dataclasses.replace(execution, batch_size=phase.batch_size, strategy=None)


def grid_program(
    model: keras.Model,
    *,
    attack: PGD,
    image_shape: tuple[int, ...],
    seed: int,
    execution: Execution,
    counts: Sequence[int],
) -> Callable[[WorkItems, float], GridOutcome]:
    """Return a function of `WorkItems` and a step size with the outcomes at several iterations.

    Args:
      model, image_shape, seed, execution: see `attack_program`.
      attack: one with `iterates_are_results`; the step size and the counts replace its own.
      counts: numbers of iterations, ascending.
    """
    shape = _shape_of(attack)
    program, update = _compiled(model, image_shape, shape, seed, execution, len(counts))
    update()

    def outcome(items: WorkItems, eps_iter: float) -> GridOutcome:
        numbers = {"eps": attack.eps, "eps_iter": eps_iter, "nb_iter": counts}
        return GridOutcome(
            *program(items, [_as_array(numbers[name]) for name in attack.tensor_settings])
        )

    return outcome


def _shape_of(attack: Attack) -> Attack:
    """Return an attack with 1 for the restarts and the settings that a program takes as tensors."""
    ones = {name: type(getattr(attack, name))(1) for name in attack.tensor_settings}
    return attack.replace_unchecked(**ones, restarts=1)


def _as_array(number: Any) -> np.ndarray:
    array = np.asarray(number)
    return array.astype(np.int32 if array.dtype.kind == "i" else np.float32)


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


@cached_for_models(maxsize=4)
def _compiled(
    model: keras.Model,
    image_shape: tuple[int, ...],
    attack: Attack,
    seed: int,
    execution: Execution,
    counts: int | None = None,
) -> tuple[BatchFunction, Callable[[], None]]:
    """Return one compiled program for all attacks on a model that differ only in their sizes.

    The second function returned updates the program's copies of the model's weights. The last few
    programs are cached, since the columns of a table follow each other on one model. `counts` is
    the number of iteration counts with an outcome; None: the last iterate only.
    """
    source, strategy = model, execution.strategy
    if strategy is not None:
        with strategy.scope():
            model = copy_in_dtype(source, "float32")
    if attack.dtype == "bfloat16" and not (execution.xla or kernels.multiply_bfloat16()):
        _log.warning(
            "this processor has no bfloat16 instructions and emulates them, about five times "
            "slower than float32; crafting in float32 gives a separate result, whose accuracy "
            "differs only by chance"
        )
    with strategy.scope() if strategy else nullcontext():
        crafter = copy_in_dtype(model, attack.dtype) if attack.dtype != "float32" else model
    classify = verdict_function(model)
    crafting_logits, clean_logits = logits_function(crafter), logits_function(model)
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

    spec = {name: _as_array(getattr(attack, name)).dtype for name in attack.tensor_settings}
    shapes = {"nb_iter": [] if counts is None else [counts]}

    @tf.function(
        autograph=False,
        input_signature=[
            _signature(image_shape, rows),
            [tf.TensorSpec(shapes.get(name, []), dtype) for name, dtype in spec.items()],
        ],
        jit_compile=execution.xla,
    )
    def program(items: WorkItems, numbers: list[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        held = attack.replace_unchecked(**dict(zip(spec, numbers, strict=True)))
        given = CraftItems(*items[:4], tf.constant(seed), clean_logits)
        if counts is None or not isinstance(held, PGD):
            crafted = held.craft(crafting_logits, given)
            return (*classify(crafted.adversarial, items), crafted.nonfinite_gradients)
        return _outcomes_at_counts(held, crafting_logits, given, lambda x: classify(x, items))

    def on_one_device(items: WorkItems, sizes: Any) -> list[np.ndarray]:
        return [value.numpy() for value in program(items, list(sizes))]

    run = on_one_device if strategy is None else on_replicas(program, strategy)
    return padded(run, items=execution.items, rows=rows * execution.replicas), update


def _eager_program(
    model: keras.Model,
    attack: Attack,
    image_shape: tuple[int, ...],
    seed: int,
    execution: Execution,
) -> AttackProgram:
    """Return a program whose crafting is not compiled, as by Cleverhans, with a compiled verdict.

    A non-finite gradient of Cleverhans' leads to a non-finite image, which has no verdict.
    """
    logits = logits_function(model)
    classify = tf.function(verdict_function(model), jit_compile=execution.xla, autograph=False)
    signature = _signature(image_shape, execution.batch_size)

    def program(items: WorkItems) -> BatchOutcome:
        tensors = WorkItems(
            *(tf.constant(v, s.dtype) for v, s in zip(items, signature, strict=True))
        )
        crafted = attack.craft(logits, CraftItems(*tensors[:4], tf.constant(seed), logits))
        outcome = (*classify(crafted.adversarial, tensors), crafted.nonfinite_gradients)
        return BatchOutcome(*(value.numpy() for value in outcome))

    return program


_Classify = Callable[[tf.Tensor, WorkItems], tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]]


def verdict_function(model: keras.Model) -> _Classify:
    """Return a function that clips crafted images to their bounds and classifies them, float32."""
    logits = logits_function(model)

    def classify(
        crafted: tf.Tensor, items: WorkItems
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        labels = items.labels
        final = tf.clip_by_value(crafted, items.lower, items.upper)
        outputs = logits(final)
        # Of the image before clipping: a minimum may turn NaN into a bound.
        finite = tf.reduce_all(tf.math.is_finite(crafted), axis=[1, 2, 3])
        finite &= tf.reduce_all(tf.math.is_finite(outputs), axis=1)
        broken = finite & (tf.argmax(outputs, axis=1, output_type=tf.int32) != labels)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=outputs)
        return broken, losses, final, finite

    return classify


def _outcomes_at_counts(
    attack: PGD,
    logits: LogitsFunction,
    items: CraftItems,
    classify: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]],
) -> tuple[tf.Tensor, ...]:
    """Return the outcomes of one run after each of the counts in `nb_iter`; see `GridOutcome`."""
    run = PgdRun(logits, items.images, items.labels, attack, attack.draw(items))
    counts = tf.convert_to_tensor(attack.nb_iter)
    batch = items.labels.shape[0]
    verdicts = [tf.TensorArray(tf.bool, counts.shape[0], element_shape=[batch]) for _ in range(2)]

    def to_next_count(j: tf.Tensor, iterate: Iterate, *verdicts: tf.TensorArray) -> tuple:
        iterate = run.advance(iterate, counts[j])
        broken, _, _, finite = classify(run.result(iterate).adversarial)
        return j + 1, iterate, verdicts[0].write(j, broken), verdicts[1].write(j, finite)

    _, _, *verdicts = tf.while_loop(
        lambda j, *_: j < counts.shape[0],
        to_next_count,
        (tf.constant(0), run.first(), *verdicts),
        parallel_iterations=1,
    )
    return tuple(tf.transpose(verdict.stack()) for verdict in verdicts)
