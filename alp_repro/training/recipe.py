"""A training recipe: everything that makes one row of a table (paper, section 2; protocol)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

from alp_repro.attacks.settings import Attack, Dtype
from alp_repro.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained; the total loss is

    clean_weight · CE(clean) + adversarial_weight · CE(adversarial) + alp · ALP + clp · CLP
    + lsq · LSQ + weight_decay · Σ ½‖w‖².

    Attributes:
      dataset, model: names known to `datasets` and `models`.
      model_width: narrows the model (None: the paper's width).
      clean_weight, adversarial_weight: λ_ct and λ_at; "50% AT" is 0.5 and 0.5.
      clp, lsq, alp: λ of clean logit pairing, logit squeezing, adversarial logit pairing.
      noise_stddev: σ of the Gaussian added to every clean image, [0, 1] scale.
      clip_noise: noisy images are clipped to [0, 1] (MNIST, CIFAR-10) or not (Tiny ImageNet).
      attack: crafts the adversarial images; sizes on the [0, 1] scale; None when none are used.
      attack_warmup_steps: eps and eps_iter grow linearly over this many first steps (0: the paper).
      attack_batch_statistics: while crafting, batch norm uses the batch's statistics (training
        mode: MNIST, CIFAR-10) or its moving averages (Tiny ImageNet).
      joint_batch: clean and adversarial images pass through the model as one batch, so that batch
        norm sees both (Tiny ImageNet).
      augment: random crop, flip and saturation (Tiny ImageNet).
      label_smoothing, weight_decay: 0.1 and 1e-4 on Tiny ImageNet, 0 elsewhere.
      learning_rate: of Adam (β 0.9 and 0.999, ε 1e-6).
      learning_rate_drops: epochs (counted from 0) at which it is divided by 10.
      average_decay: decay of a moving average of the weights, kept beside the raw ones; 0: none.
      epochs, batch_size: the last partial batch of an epoch is kept.
      train_images: the first so many of the training set; None: all.
      dtype: of the passes; weights, losses, penalties and the optimizer are always float32. Of the
        crafting passes: `attack.dtype`.
      round_weights: the finished model's weights are rounded to bfloat16 (and stored as float32),
        which compress to half the size.
      seed: of the weights, the order, the noise and the training attack.

    Raises:
      InputError: a value out of range or settings that contradict each other.
    """

    dataset: str
    model: str
    model_width: int | None = None
    clean_weight: float = 1.0
    adversarial_weight: float = 0.0
    clp: float = 0.0
    lsq: float = 0.0
    alp: float = 0.0
    noise_stddev: float = 0.0
    clip_noise: bool = True
    attack: Attack | None = None
    attack_warmup_steps: int = 0
    attack_batch_statistics: bool = True
    joint_batch: bool = False
    augment: bool = False
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    learning_rate: float = 0.001
    learning_rate_drops: tuple[int, ...] = ()
    average_decay: float = 0.0
    epochs: int
    batch_size: int
    train_images: int | None = None
    dtype: Dtype = "float32"
    round_weights: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every setting and that they agree."""
        for name in ("epochs", "batch_size", "train_images", "model_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"recipe {name} {value}: a count of 1 or more is needed")
        for name in (
            "clean_weight", "adversarial_weight", "clp", "lsq", "alp", "noise_stddev",
            "attack_warmup_steps", "weight_decay", "learning_rate",
        ):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"recipe {name} {value}: a finite number of 0 or more is needed")
        for name in ("label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"recipe {name} {getattr(self, name)}: a number in [0, 1) is needed"
                )
        if self.dtype not in get_args(Dtype):
            raise InputError(f"recipe dtype {self.dtype!r}: one of {', '.join(get_args(Dtype))}")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"recipe seed {self.seed}: a number in [0, 2^31) is needed")
        if self.clean_weight + self.adversarial_weight == 0:
            raise InputError("recipe: clean and adversarial weight are both 0, nothing is learned")
        if self.uses_adversarial and self.attack is None:
            raise InputError("recipe: adversarial images are used but no training attack is given")
        if self.attack is not None and self.attack.method not in ("pgd", "apgd"):
            raise InputError(
                f"recipe: training attack {self.attack.method} has no gradient steps: use pgd or "
                "apgd"
            )
        if self.attack is not None and self.attack.engine != "loop":
            raise InputError(
                f"recipe: training attack engine={self.attack.engine} is for evaluations: a "
                "training step crafts with engine=loop, which takes the same steps"
            )

    @property
    def uses_adversarial(self) -> bool:
        """Whether any term needs adversarial images."""
        return self.adversarial_weight > 0 or self.alp > 0

    @property
    def uses_clean(self) -> bool:
        """Whether any term needs the logits of clean images."""
        return self.clean_weight > 0 or max(self.clp, self.lsq, self.alp) > 0

    def to_json(self) -> dict[str, Any]:
        """Plain data that `json` writes and that tells two recipes apart."""
        return dataclasses.asdict(self)
