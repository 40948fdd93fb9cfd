"""Gradient attacks in the L∞ ball: their settings, starting points, targets and the PGD loop.

The loop is Cleverhans' `projected_gradient_descent` step for step (`optimize_linear`, `clip_eta`)
from a given starting point and as one `tf.while_loop`, so that it compiles and resumes; a test
holds it to Cleverhans' exact bits. Everything here is on the model's input scale, [0, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast, get_args

import keras
import numpy as np
import tensorflow as tf
from cleverhans.tf2.utils import clip_eta, optimize_linear

from alp_repro import stateless_random
from alp_repro.attacks.apgd import auto_pgd
from alp_repro.attacks.losses import attack_loss
from alp_repro.errors import InputError

Method = Literal["pgd", "apgd", "spsa"]
Loss = Literal["cross_entropy", "margin", "dlr"]
StepSchedule = Literal["constant", "linear"]
Success = Literal["last", "any"]
Target = Literal["none", "random", "least_likely", "each", "rotate"]
Dtype = Literal["float32", "bfloat16"]
Engine = Literal["loop", "cleverhans"]
_ROTATION = 3  # restarts in a turn of target=rotate
LogitsFunction = Callable[[tf.Tensor], tf.Tensor]
NoiseFunction = Callable[[tf.Tensor], tf.Tensor]

_CHOICES = {
    "method": Method,
    "loss": Loss,
    "step_schedule": StepSchedule,
    "success": Success,
    "target": Target,
    "dtype": Dtype,
    "engine": Engine,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """Settings of one L∞ attack; sizes are on the model's input scale [0, 1] (76.5/255 = 0.3).

    Attributes:
      eps: radius of the ball.
      eps_iter: size of a sign step (of the first one under the linear schedule). SPSA: Adam's
        learning rate. APGD ignores it and begins with 2·eps.
      nb_iter: steps of one restart.
      restarts: independent full runs, each from its own start (paper: r).
      method: `pgd` (Madry et al. 2017), `apgd` (Croce & Hein 2020), `spsa` (Uesato et al. 2018).
      loss: what is maximised; see `attack_losses`.
      step_schedule: `constant`, or `linear`: step i of n is eps_iter · (1 - i/n).
      momentum: a PGD step follows the sign of the gradient plus this share of the direction before
        (Dong et al. 2018, without their scaling of the gradient); 0: the paper.
      gradient_noise: the gradient of a PGD step is taken at the point plus uniform noise of this
        half-width, which falls linearly to 0 half way through a run: a loss that is flat or bumpy
        at the point itself is climbed as it looks from afar. Averaged by the momentum, it is one
        sample a step of the expectation of Athalye et al. 2018. 0: the paper.
      success: `last`: the last iterate is judged (the paper); `any`: the iterate with the largest
        margin of a wrong class over the true one.
      target: `none` (the true label's loss grows); `random`: drawn once for an image and kept over
        its restarts, may equal the true class; `least_likely` of the clean prediction; `each`:
        restart r aims at the wrong class of rank r (modulo their number) of the clean prediction;
        `rotate`: restarts in turns of three: aimed as those of `each` in turn; at the same class
        without gradient_noise and momentum; with neither these nor a target.
        An image is broken when its prediction is not the true label, whatever the target.
      random_start: uniform in the ball, clipped to [0, 1]; otherwise the clean image.
      dtype: of the crafting passes; the verdict is always float32.
      engine: `loop` is ours; `cleverhans` calls `projected_gradient_descent` itself (reference:
        reproducible for equal batches only, since its starts are stateful).

    Raises:
      InputError: a size or count out of range, or an unknown choice, named with what is allowed.
    """

    eps: float
    eps_iter: float
    nb_iter: int
    restarts: int = 1
    method: Method = "pgd"
    loss: Loss = "cross_entropy"
    step_schedule: StepSchedule = "constant"
    momentum: float = 0.0
    gradient_noise: float = 0.0
    success: Success = "last"
    target: Target = "none"
    random_start: bool = True
    dtype: Dtype = "float32"
    engine: Engine = "loop"

    def __post_init__(self) -> None:
        """Checks every setting."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise InputError(
                    f"attack {name}={getattr(self, name)!r}: one of {', '.join(get_args(choices))}"
                )
        if not 0 < self.eps <= 1:
            raise InputError(
                f"attack eps {self.eps * 255:g}: a size in (0, 255] on the 0-255 scale is needed"
            )
        if not 0 < self.eps_iter <= self.eps and self.method == "pgd":
            raise InputError(
                f"attack eps_iter {self.eps_iter * 255:g}: a step in (0, eps] is needed; eps is "
                f"{self.eps * 255:g} (0-255 scale)"
            )
        for name in ("nb_iter", "restarts"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"attack {name} {getattr(self, name)}: a count of 1 or more is needed"
                )
        if not (0 <= self.momentum < 1 and 0 <= self.gradient_noise < np.inf):
            raise InputError(
                f"attack momentum {self.momentum:g}, gradient_noise {self.gradient_noise * 255:g}: "
                "a share in [0, 1) and a size of 0 or more are needed"
            )
        if (self.momentum or self.gradient_noise) and self.method != "pgd":
            raise InputError(f"attack {self.method}: momentum and gradient_noise are PGD's")
        if self.gradient_noise and self.success == "any":
            raise InputError(
                "attack success=any: an iterate's own logits are needed, and with gradient_noise "
                "they are never computed; success=last works"
            )
        if self.target == "rotate" and (self.method == "spsa" or self.engine == "cleverhans"):
            raise InputError("attack target=rotate: our loop's pgd and apgd alone know it")
        ours_alone = (
            self.method, self.loss, self.step_schedule, self.momentum, self.gradient_noise,
            self.success, self.dtype,
        )  # fmt: skip
        faithful = ("pgd", "cross_entropy", "constant", 0.0, 0.0, "last", "float32")
        if self.engine == "cleverhans" and ours_alone != faithful:
            raise InputError(
                "attack engine=cleverhans: its projected_gradient_descent knows a constant step, "
                "the cross-entropy, the last iterate and float32 only"
            )


@dataclasses.dataclass(frozen=True)
class Sizes:
    """An attack's numbers as a graph takes them, input scale.

    As tensors they let one compiled program serve attacks that differ in nothing else, and a
    training grow its ball.
    """

    eps: tf.Tensor | float
    eps_iter: tf.Tensor | float
    nb_iter: tf.Tensor | int


def strong_attack(eps: float, *, dtype: Dtype = "float32") -> Attack:
    """Our preset `strong`: 1,800 gradients an image with ten classes (docs/performance.md).

    Eighteen runs of 100 steps that fall linearly from ε, in turns of three. The first of a turn is
    aimed at another wrong class by gradients at noisy points that momentum averages: a distorted
    surface, as of CLP and LSQ, hides its way up from the true label's loss at the point itself, not
    from these. The second is aimed there by the point's own gradients and the third has no target,
    both without momentum: on smooth surfaces, as of adversarially trained models, these find what
    the first pass over. The sizes were found on MNIST.
    """
    return Attack(
        eps=eps, eps_iter=eps, nb_iter=100, restarts=18, loss="margin", step_schedule="linear",
        momentum=0.75, gradient_noise=4 * eps, target="rotate", dtype=dtype,
    )  # fmt: skip


def resolve_dtype(name: str) -> Dtype:
    """The crafting dtype a name stands for; `auto`: bfloat16 where the hardware multiplies in it.

    A CPU without such instructions emulates bfloat16, more slowly than float32.
    """
    if name != "auto":
        return cast(Dtype, name)
    if tf.config.get_visible_devices("GPU"):  # asking for logical ones would settle the devices
        return "bfloat16"
    try:
        instructions = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        instructions = set()
    return "bfloat16" if instructions & {"amx_bf16", "avx512_bf16"} else "float32"


def logits_function(model: keras.Model, *, training: bool = False) -> LogitsFunction:
    """Float32 images to float32 logits, whatever the model computes in.

    Args:
      model: maps images to logits.
      training: True lets batch norm use the batch's statistics; its moving averages then change
        unless the model is a `crafting_copy`.
    """

    def logits(images: tf.Tensor) -> tf.Tensor:
        outputs = model(tf.cast(images, model.compute_dtype), training=training)
        return tf.cast(outputs, tf.float32)

    return logits


def crafting_copy(model: keras.Model, dtype: Dtype | Literal["mixed_bfloat16"]) -> keras.Model:
    """A copy of a model that computes in another dtype, with weights of its own in that dtype.

    Weights in the crafting dtype, rather than mixed precision, spare a cast of every weight in each
    step; `copy_weights` brings them up to date.

    Raises:
      InputError: the model is neither functional nor sequential, so that it cannot be cloned.
    """

    def copied(layer: keras.Operation) -> keras.Operation:
        # What stands between layers, as in `inputs * 255`, has no dtype of its own.
        own = {"dtype": dtype} if isinstance(layer, keras.layers.Layer) else {}
        return layer.__class__.from_config({**layer.get_config(), **own})

    policy = keras.config.dtype_policy()
    # A model takes the policy that is set when it is built, and casts its input to it.
    keras.config.set_dtype_policy(dtype)
    try:
        copy = keras.models.clone_model(model, clone_function=copied, recursive=True)
    except ValueError as error:
        raise InputError(
            f"the model {model.name!r} cannot be copied in {dtype} ({error}): craft in float32, or "
            "give a functional or Sequential model"
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    return copy


def float32_copy(model: keras.Model) -> keras.Model:
    """A copy of a model that computes in float32, with the same weights."""
    copy = crafting_copy(model, "float32")
    copy.set_weights(model.get_weights())
    return copy


def copy_weights(source: keras.Model, destination: keras.Model) -> None:
    """Assigns every weight of one model to its `crafting_copy`, cast to the copy's dtype."""
    for theirs, ours in zip(source.weights, destination.weights, strict=True):
        ours.assign(tf.cast(theirs.value, ours.dtype))


def random_starts(
    images: tf.Tensor,
    *,
    image_index: tf.Tensor,
    restart: tf.Tensor,
    seed: tf.Tensor,
    eps: tf.Tensor,
) -> tf.Tensor:
    """Uniform points in the ε-ball, clipped to [0, 1]; each depends on its own indices alone.

    Args:
      images: float32 [batch, height, width, channels].
      image_index, restart: int [batch].
      seed: int scalar below 2³¹.
      eps: float scalar, input scale.
    """
    shape = images.shape[1:]

    def noise(index_and_restart: tf.Tensor) -> tf.Tensor:
        seeds = item_seed(seed, index_and_restart[0], index_and_restart[1])
        return stateless_random.uniform(shape, seeds, low=-1.0, high=1.0)

    indices = tf.stack([tf.cast(image_index, tf.int64), tf.cast(restart, tf.int64)], axis=1)
    eta = eps * tf.map_fn(noise, indices, fn_output_signature=tf.TensorSpec(shape, tf.float32))
    return tf.clip_by_value(images + clip_eta(eta, np.inf, eps), 0.0, 1.0)


def item_seed(seed: tf.Tensor, image_index: tf.Tensor, restart: tf.Tensor) -> tf.Tensor:
    """The stateless seed of a work item: int64 [2], distinct for each (seed, image, restart)."""
    high = tf.cast(seed, tf.int64) * (1 << 32) + tf.cast(restart, tf.int64)
    return tf.stack([high, tf.cast(image_index, tf.int64)])


def item_noise(
    shape: tuple[int, ...], *, image_index: tf.Tensor, restart: tf.Tensor, seed: tf.Tensor
) -> NoiseFunction:
    """Fresh uniform noise in [-1, 1] for each step, which depends on an item's own indices alone.

    Args:
      shape: of one image.
      image_index, restart: int [batch].
      seed: int scalar below 2³¹.

    Returns:
      A function from the step, an int scalar, to float32 [batch, *shape].
    """
    indices = tf.stack([tf.cast(image_index, tf.int64), tf.cast(restart, tf.int64)], axis=1)
    of_items = tf.map_fn(
        lambda item: stateless_random.bits(shape, item_seed(seed, item[0], item[1])),
        indices,
        fn_output_signature=tf.TensorSpec(shape, tf.uint32),
    )

    def noise(step: tf.Tensor) -> tf.Tensor:
        # One draw an image would take longer than the gradient. Words of an item and words of a
        # step, combined by XOR, are uniform and independent between items and between steps.
        of_step = stateless_random.bits(shape, item_seed(seed, step, tf.constant(-2)))
        words = tf.bitwise.bitwise_xor(of_items, of_step)
        return stateless_random.uniform_from_bits(words, low=-1.0, high=1.0)

    return noise


def calm_items(target: Target, restart: tf.Tensor) -> tf.Tensor | None:
    """Bool [batch], the work items without gradient_noise and momentum; None: none of them."""
    return restart % _ROTATION > 0 if target == "rotate" else None


def choose_targets(
    target: Target,
    *,
    clean_logits: tf.Tensor,
    labels: tf.Tensor,
    image_index: tf.Tensor,
    restart: tf.Tensor,
    seed: tf.Tensor,
) -> tf.Tensor | None:
    """The class each work item aims at, int32 [batch], -1: none; None for an untargeted attack.

    Args:
      target: see `Attack`.
      clean_logits: float32 [batch, classes] on the clean images.
      labels, image_index, restart: int [batch].
      seed: int scalar; the random target depends on it and the image's index alone.
    """
    classes = clean_logits.shape[-1]
    if target == "none":
        return None
    if target == "least_likely":
        return tf.argmin(clean_logits, axis=1, output_type=tf.int32)
    if target == "random":
        # Restart -1 is no restart's: the draw shares no random numbers with a starting point.
        uniform = tf.map_fn(
            lambda index: stateless_random.uniform([], item_seed(seed, index, tf.constant(-1))),
            tf.cast(image_index, tf.int64),
            fn_output_signature=tf.TensorSpec([], tf.float32),
        )
        return tf.cast(uniform * classes, tf.int32)
    true_class = tf.one_hot(labels, classes, on_value=True, off_value=False)
    wrong_logits = tf.where(true_class, -np.inf, clean_logits)
    ranking = tf.argsort(wrong_logits, axis=1, direction="DESCENDING", stable=True)
    turn = tf.cast(restart, tf.int32)
    if target == "each":
        return tf.gather(ranking, turn % (classes - 1), axis=1, batch_dims=1)
    aims = tf.gather(ranking, turn // _ROTATION % (classes - 1), axis=1, batch_dims=1)
    return tf.where(turn % _ROTATION < _ROTATION - 1, aims, -1)


def loss_and_gradient(
    logits: LogitsFunction, labels: tf.Tensor, *, loss: Loss, targets: tf.Tensor | None = None
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """A function of images: their logits, each one's attack loss, the gradient of their sum.

    In a graph it stays a function of its own. Where it is inlined in a loop, TensorFlow's oneDNN
    pass may meet a max-pool's gradient before the max-pool, by the memory addresses of the loop's
    edges, and then leaves it to a far slower kernel: in two processes of three, seen with
    TensorFlow 2.21 (docs/performance.md).

    Args:
      logits: the crafting model.
      labels: int [batch].
      loss: see `Attack`.
      targets: int [batch] for a targeted attack, -1: this item has no target.
    """

    def value_and_gradient(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            outputs = logits(points)
            values = attack_loss(loss, labels=labels, logits=outputs, targets=targets)
        return outputs, values, tape.gradient(values, points)

    if not tf.inside_function():
        return value_and_gradient
    return tf.function(value_and_gradient, experimental_attributes={"_noinline": True})


def pgd_step(
    points: tf.Tensor,
    gradient: tf.Tensor,
    *,
    images: tf.Tensor,
    eps: tf.Tensor | float,
    step_size: tf.Tensor | float,
) -> tf.Tensor:
    """One sign step of Cleverhans' `projected_gradient_descent`, back into the ball and [0, 1].

    Args:
      points, gradient, images: float32 of one shape; the ball lies around `images`.
      eps, step_size: input scale.
    """
    points = tf.clip_by_value(points + optimize_linear(gradient, step_size, np.inf), 0.0, 1.0)
    return tf.clip_by_value(images + clip_eta(points - images, np.inf, eps), 0.0, 1.0)


def craft(
    logits: LogitsFunction,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    attack: Attack,
    starts: tf.Tensor,
    targets: tf.Tensor | None = None,
    noise: NoiseFunction | None = None,
    calm: tf.Tensor | None = None,
    sizes: Sizes | None = None,
) -> tf.Tensor:
    """Adversarial images for one restart of PGD or APGD, with no gradient through the crafting.

    Args:
      logits: the crafting model.
      images: float32 [batch, height, width, channels] in [0, 1].
      labels: int [batch].
      attack: settings; `method`, `engine` and `random_start` beyond these are the caller's.
      starts: like images, inside the ball.
      targets: int [batch] for a targeted attack.
      noise: see `item_noise`; needed by an attack with `gradient_noise`.
      calm: bool [batch], items that take neither the attack's noise nor its momentum.
      sizes: taken for the attack's own eps, eps_iter and nb_iter (APGD, whose checkpoints are
        fixed in the graph, keeps its own nb_iter).

    Returns:
      Float32 images like `images`, inside the ball up to rounding and inside [0, 1].

    Raises:
      InputError: the attack has `gradient_noise` and no noise is given.
    """
    if attack.gradient_noise and noise is None:
        raise InputError(
            "attack gradient_noise: an evaluation knows it, a training attack does not"
        )
    sizes = sizes or Sizes(attack.eps, attack.eps_iter, attack.nb_iter)
    value_and_gradient = loss_and_gradient(logits, labels, loss=attack.loss, targets=targets)
    if attack.method == "apgd":
        result = auto_pgd(
            value_and_gradient, images, starts, eps=sizes.eps, nb_iter=attack.nb_iter,
            labels=labels,
        )  # fmt: skip
        return tf.stop_gradient(result.adversarial)
    return tf.stop_gradient(
        _pgd(
            value_and_gradient, logits, images, labels, starts, attack=attack, noise=noise,
            calm=calm, sizes=sizes,
        )
    )  # fmt: skip


def _pgd(
    value_and_gradient: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    logits: LogitsFunction,
    images: tf.Tensor,
    labels: tf.Tensor,
    starts: tf.Tensor,
    *,
    attack: Attack,
    noise: NoiseFunction | None,
    calm: tf.Tensor | None,
    sizes: Sizes,
) -> tf.Tensor:
    def unless_calm(value: tf.Tensor | float) -> tf.Tensor | float:
        return value if calm is None else tf.where(calm, 0.0, value)[:, None, None, None]

    momentum = unless_calm(attack.momentum)
    iterations = tf.convert_to_tensor(sizes.nb_iter)

    def share_done(i: tf.Tensor) -> tf.Tensor:
        return tf.cast(i, tf.float32) / tf.cast(iterations, tf.float32)

    def looked_at(points: tf.Tensor, i: tf.Tensor) -> tf.Tensor:
        if noise is None or not attack.gradient_noise:
            return points
        width = attack.gradient_noise * tf.maximum(0.0, 1.0 - 2.0 * share_done(i))
        return points + unless_calm(width) * noise(i)

    def step(
        points: tf.Tensor, direction: tf.Tensor, i: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        outputs, _, gradient = value_and_gradient(looked_at(points, i))
        direction = momentum * direction + gradient if attack.momentum else gradient
        size = sizes.eps_iter
        if attack.step_schedule == "linear":
            size = size * (1.0 - share_done(i))
        points = pgd_step(points, direction, images=images, eps=sizes.eps, step_size=size)
        return outputs, points, direction

    standstill = tf.zeros_like(starts)
    if attack.success == "last":

        def advance(i: tf.Tensor, points: tf.Tensor, direction: tf.Tensor) -> tuple:
            return i + 1, *step(points, direction, i)[1:]

        return tf.while_loop(
            lambda i, *_: i < iterations, advance, (0, starts, standstill), parallel_iterations=1
        )[1]

    def better(best: tuple[tf.Tensor, tf.Tensor], points: tf.Tensor, outputs: tf.Tensor) -> tuple:
        margin = attack_loss("margin", labels=labels, logits=outputs)
        larger = margin > best[1]
        chosen = tf.where(larger[:, None, None, None], points, best[0])
        return chosen, tf.where(larger, margin, best[1])

    def advance_and_keep(
        i: tf.Tensor, points: tf.Tensor, direction: tf.Tensor, best: tuple
    ) -> tuple:
        outputs, following, direction = step(points, direction, i)
        return i + 1, following, direction, better(best, points, outputs)

    nothing = (starts, tf.fill(tf.shape(labels), -np.inf))
    _, points, _, best = tf.while_loop(
        lambda i, *_: i < iterations, advance_and_keep, (0, starts, standstill, nothing),
        parallel_iterations=1,
    )  # fmt: skip
    return better(best, points, logits(points))[0]
