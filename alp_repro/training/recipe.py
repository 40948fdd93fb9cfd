"""A training recipe: everything that makes one row of a table (paper, section 2; protocol)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from alp_repro import decoding
from alp_repro.attacks.settings import Attack, Dtype
from alp_repro.errors import InputError
from alp_repro.losses import PENALTIES
from alp_repro.plain_numbers import number, whole_number

# The least and the largest value of a count; the largest is one that no honest training reaches.
_COUNTS = {
    "epochs": (1, 10**6),
    "max_steps": (1, 10**9),
    "batch_size": (1, 10**6),
    "virtual_replicas": (1, 1024),
    "train_images": (1, 10**8),
    "model_width": (1, 4096),
    "attack_warmup_steps": (0, 10**9),
    "seed": (0, 2**31 - 1),
}
_OPTIONAL = ("max_steps", "train_images", "model_width")
_WEIGHTS = ("clean_weight", "adversarial_weight", "weight_decay")
_LARGEST_WEIGHT = 1e6
_LARGEST_NOISE = 100.0
_POSITIVE = (("learning_rate", 1e-12, 1e3), ("adam_epsilon", 1e-30, 1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained; the total loss is

    clean_weight · CE(clean) + adversarial_weight · CE(adversarial) + Σ λ · penalty
    + weight_decay · Σ ½‖w‖².

    Attributes:
      dataset, model: names known to `data.specs` and `models`.
      model_width: narrows the model (None: the paper's width).
      clean_weight, adversarial_weight: λ_ct and λ_at; "50% AT" is 0.5 and 0.5.
      penalties: λ of each penalty by its name in `losses.PENALTIES`, as in {"clp": 0.5}.
      noise_stddev: σ of the Gaussian added to every clean image, [0, 1] scale.
      clip_noise: noisy images are clipped to [0, 1] (MNIST, CIFAR-10) or not (Tiny ImageNet).
      attack: crafts the adversarial images; sizes on the [0, 1] scale; None when none are used.
      attack_warmup_steps: eps and eps_iter grow linearly over this many first steps (0: the paper).
      attack_batch_statistics: while crafting, batch norm uses the batch's statistics (training
        mode: MNIST, CIFAR-10) or its moving averages (Tiny ImageNet).
      joint_batch: clean and adversarial images pass through the model as one batch, so that batch
        norm sees both (Tiny ImageNet).
      separate_passes: the clean batch passes the model even where no loss needs it, and once more
        for each penalty on clean images alone, CLP's halves one after the other; every pass is
        normalised by its own statistics and moves batch norm's averages (CIFAR-10).
      statistics_passes: an adversarial batch, the two halves of the pairs and the clean images once
        more pass the model for nothing but batch norm's averages, as in every row of the authors'
        CIFAR-10 code; `attack` crafts the batch where the loss has none.
      virtual_replicas: batch norm and the penalties see the shares of a batch that so many
        replicas would have (Tiny ImageNet: 8 of 32), on each device that there is.
      augment: random crop, flip and saturation (Tiny ImageNet).
      label_smoothing, weight_decay: 0.1 and 1e-4 on Tiny ImageNet, 0 elsewhere.
      learning_rate: of Adam (β 0.9 and 0.999).
      adam_epsilon: its ε: 1e-6, but 1e-8 on Tiny ImageNet.
      learning_rate_drops: epochs (counted from 0) at which it is divided by 10.
      average_decay: decay of a moving average of the weights, kept beside the raw ones; 0: none.
      epochs, batch_size: the last partial batch of an epoch is kept.
      max_steps: the training ends after so many steps, should its epochs have more.
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
    penalties: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    noise_stddev: float = 0.0
    clip_noise: bool = True
    attack: Attack | None = None
    attack_warmup_steps: int = 0
    attack_batch_statistics: bool = True
    joint_batch: bool = False
    separate_passes: bool = False
    statistics_passes: bool = False
    virtual_replicas: int = 1
    augment: bool = False
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    learning_rate: float = 0.001
    adam_epsilon: float = 1e-6
    learning_rate_drops: tuple[int, ...] = ()
    average_decay: float = 0.0
    epochs: int
    max_steps: int | None = None
    batch_size: int
    train_images: int | None = None
    dtype: Dtype = "float32"
    round_weights: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Makes plain numbers of all numbers, and checks each and that they agree."""
        for name, value in _checked_numbers(self).items():
            object.__setattr__(self, name, value)
        if self.dtype not in get_args(Dtype):
            raise InputError(f"recipe dtype {self.dtype!r}: one of {', '.join(get_args(Dtype))}")
        if self.clean_weight + self.adversarial_weight == 0:
            raise InputError("recipe: clean and adversarial weight are both 0, nothing is learned")
        for name in ("separate_passes", "statistics_passes"):
            if self.joint_batch and getattr(self, name):
                raise InputError(f"recipe: joint_batch and {name} contradict each other")
        if self.batch_size % self.virtual_replicas:
            raise InputError(
                f"recipe batch_size {self.batch_size}: no multiple of the {self.virtual_replicas} "
                "virtual_replicas that share it"
            )
        share = self.batch_size // self.virtual_replicas
        for name in self.penalties:
            if PENALTIES[name].pairs and share < 2:
                raise InputError(f"recipe {name}: a batch of {share} has no pair: 2 or more do")
        self._check_attack()

    def _check_attack(self) -> None:
        attack = self.attack
        if attack is None:
            if self.crafts:
                raise InputError(
                    "recipe: adversarial images are used but no training attack is given"
                )
            for name in ("attack_warmup_steps", "joint_batch"):
                if getattr(self, name):
                    raise InputError(f"recipe {name}: no adversarial images are used")
            return
        if not self.crafts:
            raise InputError(
                "recipe: a training attack is given but nothing uses its images: "
                "an adversarial_weight or a penalty such as alp does"
            )
        if attack.method not in ("pgd", "apgd"):
            raise InputError(
                f"recipe: training attack {attack.method} has no gradient steps: use pgd or apgd"
            )
        if attack.engine != "loop":
            raise InputError(
                f"recipe: training attack engine={attack.engine} is for evaluations: a "
                "training step crafts with engine=loop, which takes the same steps"
            )
        if attack.restarts > 1 or attack.gradient_noise or attack.target in ("each", "rotate"):
            raise InputError(
                "recipe: a training attack is one run with one kind of target: restarts, "
                "gradient_noise and the targets each and rotate are for evaluations"
            )

    @property
    def uses_adversarial(self) -> bool:
        """Whether any term needs adversarial images."""
        return self.adversarial_weight > 0 or self._needs("adversarial")

    @property
    def crafts(self) -> bool:
        """Whether adversarial images are crafted, for the loss or for batch norm's averages."""
        return self.uses_adversarial or self.statistics_passes

    @property
    def uses_clean(self) -> bool:
        """Whether the clean images pass the model."""
        return self.clean_weight > 0 or self._needs("clean") or self.separate_passes

    def _needs(self, kind: str) -> bool:
        return any(kind in PENALTIES[name].needs for name in self.penalties)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `json` writes and that tells two recipes apart.

        Every known penalty is a key of its own, 0 for one that is not used.
        """
        described = dataclasses.asdict(self)
        weights = described.pop("penalties")
        return {**described, **{name: weights.get(name, 0.0) for name in PENALTIES}}

    @classmethod
    def from_json(cls, found: Any, *, source: str) -> Recipe:
        """What `to_json` described, in this version or before; what was no setting then is default.

        Args:
          found: plain data, as JSON gives it.
          source: what it was read from, for the error.

        Raises:
          InputError: it is no recipe, in one line.
        """
        described = decoding.from_plain(found, dict[str, Any], source=source)
        weights = {name: described.pop(name) for name in PENALTIES if name in described}
        recipe: Recipe = decoding.from_plain(
            {**described, "penalties": weights}, cls, source=source, advice="it is no recipe"
        )
        return recipe


def _checked_numbers(recipe: Recipe) -> dict[str, Any]:
    """All numbers of a recipe as plain Python numbers, each in its range."""
    found: dict[str, Any] = {}
    for name, (low, high) in _COUNTS.items():
        value = getattr(recipe, name)
        if value is not None or name not in _OPTIONAL:
            found[name] = whole_number(value, name=f"recipe {name}", low=low, high=high)
    for name in _WEIGHTS:
        value = getattr(recipe, name)
        found[name] = number(value, name=f"recipe {name}", low=0, high=_LARGEST_WEIGHT)
    for name in ("label_smoothing", "average_decay"):
        value = getattr(recipe, name)
        found[name] = number(value, name=f"recipe {name}", low=0, high=1, below=True)
    for name, least, largest in _POSITIVE:
        value = getattr(recipe, name)
        found[name] = number(value, name=f"recipe {name}", low=least, high=largest)
    found["noise_stddev"] = number(
        recipe.noise_stddev, name="recipe noise_stddev", low=0, high=_LARGEST_NOISE
    )
    found["penalties"] = _checked_penalties(recipe.penalties)
    drops = tuple(
        whole_number(drop, name="recipe learning_rate_drops", low=1, high=_COUNTS["epochs"][1])
        for drop in recipe.learning_rate_drops
    )
    if list(drops) != sorted(set(drops)):
        raise InputError(
            f"recipe learning_rate_drops {', '.join(map(str, drops))}: epochs that grow are needed"
        )
    return {**found, "learning_rate_drops": drops}


def _checked_penalties(weights: Mapping[str, float]) -> dict[str, float]:
    """λ of the penalties that are used, in the order of the registry."""
    for name in weights:
        if name not in PENALTIES:
            raise InputError(f"unknown penalty {name!r}: one of {', '.join(PENALTIES)}")
    checked = {
        name: number(weights[name], name=f"recipe {name}", low=0, high=_LARGEST_WEIGHT)
        for name in PENALTIES
        if name in weights
    }
    return {name: weight for name, weight in checked.items() if weight}
