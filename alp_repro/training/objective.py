"""The objective of a training: all settings of a training step, without data set and epochs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from alp_repro.attacks.ascent import GradientAttack
from alp_repro.attacks.base import Attack
from alp_repro.attacks.pgd import PGD
from alp_repro.errors import InputError
from alp_repro.losses import PENALTIES
from alp_repro.validation import decoding
from alp_repro.validation.arguments import checked_bool, checked_instance
from alp_repro.validation.plain_numbers import number, whole_number

Crafting = Literal["attack", "fast", "n_fgsm", "trades"]
_WEIGHTS = ("clean_weight", "adversarial_weight", "weight_decay")
_SWITCHES = (
    "clip_noise",
    "attack_batch_statistics",
    "joint_batch",
    "separate_passes",
    "statistics_passes",
)
_LARGEST_WEIGHT = 1e6
_LARGEST_NOISE = 100.0
_LARGEST_COUNT = 10**9
_MAX_REPLICAS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a training step:

    clean_weight · CE(clean) + adversarial_weight · CE(adversarial) + Σ λ · penalty
    + weight_decay · Σ ½‖w‖².

    Attributes:
      clean_weight, adversarial_weight: λ_ct and λ_at; "50% AT" is 0.5 and 0.5.
      penalties: λ of each penalty by its name in `losses.PENALTIES`, such as {"clp": 0.5}.
      noise_stddev: σ of the Gaussian noise on every clean image, [0, 1] scale.
      clip_noise: clip noisy images to [0, 1] (MNIST, CIFAR-10) or not (Tiny ImageNet).
      attack: crafts the adversarial images; sizes on the [0, 1] scale; None if none are used.
      crafting: how to craft with the sizes of the attack: `attack`, as the attack does; `fast`, a
        single step of 1.25 eps from noise in the ball that may leave [0, 1], as in the MNIST code
        of Wong et al. 2020 (arXiv:2001.03994; on CIFAR-10 they clip it, as `attack` does): 98.50%
        clean accuracy and 82.93% under AutoAttack (fra31/auto-attack's README; their small
        network, eps 0.3); `n_fgsm`, a single step of eps from noise in a ball of twice the size,
        without projection into the attack's ball (de Jorge et al. 2022, arXiv:2202.01181);
        `trades`, up the divergence from the clean prediction, from the image plus 0.001 · N(0, 1)
        (Zhang et al. 2019, arXiv:1901.08573).
      attack_warmup_steps: eps and eps_iter grow linearly over this many first steps (0: the paper).
      attack_warmup_nb_iter: iterations of the attack during these steps (None: as many as later);
        one is enough while the ball grows (docs/performance.md).
      attack_batch_statistics: while crafting, batch norm uses the batch's statistics (training
        mode: MNIST, CIFAR-10) or its moving averages (Tiny ImageNet).
      joint_batch: clean and adversarial images pass through the model as one batch, so that batch
        norm's statistics are those of both (Tiny ImageNet).
      separate_passes: the clean batch passes through the model even if no loss needs it, and again
        for each penalty on clean images only, with CLP's halves separately; every pass is
        normalised by its own statistics and updates batch norm's averages (CIFAR-10).
      statistics_passes: an adversarial batch, the two halves of the pairs and the clean images
        again pass through the model only to update batch norm's averages, as in every row of the
        authors' CIFAR-10 code; `attack` crafts the batch if the loss has none.
      virtual_replicas: split each device's batch into this many shares, each with its own batch
        norm statistics and pairs, as on that many replicas (the authors trained on Tiny ImageNet
        with 8 replicas of 32 images; no recipe of this project's tables sets this).
      label_smoothing, weight_decay: 0.1 and 1e-4 on Tiny ImageNet, 0 elsewhere.

    Raises:
      InputError: a value out of range or settings in conflict.
    """

    clean_weight: float = 1.0
    adversarial_weight: float = 0.0
    penalties: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    noise_stddev: float = 0.0
    clip_noise: bool = True
    attack: Attack | None = None
    crafting: Crafting = "attack"
    attack_warmup_steps: int = 0
    attack_warmup_nb_iter: int | None = None
    attack_batch_statistics: bool = True
    joint_batch: bool = False
    separate_passes: bool = False
    statistics_passes: bool = False
    virtual_replicas: int = 1
    label_smoothing: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Convert NumPy numbers to Python's, and check each setting and their combinations."""
        for name in _SWITCHES:
            value = checked_bool(getattr(self, name), name=name)
            object.__setattr__(self, name, value)
        if self.attack is not None:
            checked_instance(self.attack, Attack, name="attack")
        for name, value in _checked_numbers(self).items():
            object.__setattr__(self, name, value)
        if self.clean_weight + self.adversarial_weight == 0:
            raise InputError(
                "clean_weight and adversarial_weight are both 0: expected one above 0, or nothing "
                "is learned"
            )
        for name in ("separate_passes", "statistics_passes"):
            if self.joint_batch and getattr(self, name):
                raise InputError(f"joint_batch and {name} cannot be used together")
        self._check_attack()

    def _check_attack(self) -> None:
        attack = self.attack
        if self.crafting not in get_args(Crafting):
            raise InputError(
                f"crafting {self.crafting!r}: expected one of {', '.join(get_args(Crafting))}"
            )
        if self.crafting != "attack":
            self._check_crafting()
        if attack is None:
            if self.crafts:
                raise InputError("adversarial images are used but no training attack is given")
            for name in ("attack_warmup_steps", "attack_warmup_nb_iter", "joint_batch"):
                if getattr(self, name):
                    raise InputError(f"{name} is set but no adversarial images are used")
            return
        if not self.crafts:
            raise InputError(
                "a training attack is given but nothing uses its images: set an adversarial_weight "
                "or a penalty such as alp"
            )
        if not isinstance(attack, GradientAttack):
            raise InputError(
                f"training attack {attack.name}: expected one with gradient steps, pgd or apgd"
            )
        if self.attack_warmup_nb_iter is not None and not isinstance(attack, PGD):
            raise InputError(f"attack_warmup_nb_iter is for pgd: {attack.name} does not support it")
        if not attack.compiled:
            raise InputError(
                f"training attack {attack} is for evaluations only: use engine=loop, which takes "
                "the same steps"
            )
        if attack.restarts > 1 or attack.draws_noise or attack.target == "each":
            raise InputError(
                f"training attack {attack}: expected one restart, no gradient_noise and another "
                "target than each, which are for evaluations"
            )

    def _check_crafting(self) -> None:
        attack, ignored = self.attack, ("random_start", "dtype", "loss")
        if attack is None:
            raise InputError(f"crafting {self.crafting}: no training attack is given")
        if others := attack.non_default_text(leaving_out=ignored):
            raise InputError(f"crafting {self.crafting} does not support {others}: leave it out")
        if self.crafting in ("fast", "n_fgsm") and attack.gradients != 1:
            raise InputError(
                f"crafting {self.crafting}: expected nb_iter 1, got {attack.gradients}"
            )

    @property
    def uses_adversarial(self) -> bool:
        """True if any term needs adversarial images."""
        return self.adversarial_weight > 0 or self._needs("adversarial")

    @property
    def crafts(self) -> bool:
        """True if adversarial images are crafted, for the loss or for batch norm's averages."""
        return self.uses_adversarial or self.statistics_passes

    @property
    def uses_clean(self) -> bool:
        """True if the clean images pass through the model."""
        return self.clean_weight > 0 or self._needs("clean") or self.separate_passes

    def _needs(self, kind: str) -> bool:
        return any(kind in PENALTIES[name].needs for name in self.penalties)

    @property
    def terms(self) -> list[str]:
        """The names of the terms of the loss in logs."""
        found = {
            "clean_ce": self.clean_weight > 0,
            "adversarial_ce": self.adversarial_weight > 0,
            **dict.fromkeys(self.penalties, True),
            "weight_decay": self.weight_decay > 0,
        }
        return [name for name, is_used in found.items() if is_used]

    def check_batch(self, size: int) -> None:
        """Raise InputError if batches of this size cannot be split or paired."""
        if size % self.virtual_replicas:
            raise InputError(
                f"batch_size {size}: expected a multiple of the {self.virtual_replicas} "
                "virtual_replicas"
            )
        share = size // self.virtual_replicas
        for name in self.penalties:
            if PENALTIES[name].pairs and share < 2:
                raise InputError(
                    f"{name} pairs the images of a batch: expected 2 or more per replica, got "
                    f"{share}"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data for `from_json`."""
        described = dataclasses.asdict(self)
        described["attack"] = None if self.attack is None else self.attack.to_json()
        if self.crafting == "attack":
            del described["crafting"]  # stored settings stay as before this option existed
        if self.attack_warmup_nb_iter is None:
            del described["attack_warmup_nb_iter"]
        if not self.statistics_passes:
            del described["statistics_passes"]
        return described

    @classmethod
    def from_json(cls, found: Any, *, source: str) -> Objective:
        """Return the objective that `to_json` wrote; InputError, in one line, if it is not one."""
        objective: Objective = decoding.from_plain(found, cls, source=source)
        return objective


def resolve_objective(settings: Mapping[str, Any], objective: Objective | None) -> Objective:
    """Return the given objective, or one of these settings if there is none.

    Raises:
      InputError: both an objective and settings are given.
    """
    if objective is None:
        return Objective(**settings)
    defaults = Objective()
    for name, value in settings.items():
        if value != getattr(defaults, name):
            raise InputError(f"{name} is given in addition to an objective: set it there instead")
    return objective


def _checked_numbers(objective: Objective) -> dict[str, Any]:
    """Return all numbers of an objective as Python numbers, after checking their ranges."""
    found: dict[str, Any] = {}
    for name in _WEIGHTS:
        found[name] = number(getattr(objective, name), name=name, low=0, high=_LARGEST_WEIGHT)
    for name, low, high in (
        ("attack_warmup_steps", 0, _LARGEST_COUNT),
        ("virtual_replicas", 1, _MAX_REPLICAS),
    ):
        found[name] = whole_number(getattr(objective, name), name=name, low=low, high=high)
    if (iterations := objective.attack_warmup_nb_iter) is not None:
        found["attack_warmup_nb_iter"] = whole_number(
            iterations, name="attack_warmup_nb_iter", low=1, high=_LARGEST_COUNT
        )
    found["label_smoothing"] = number(
        objective.label_smoothing, name="label_smoothing", low=0, high=1, below=True
    )
    found["noise_stddev"] = number(
        objective.noise_stddev, name="noise_stddev", low=0, high=_LARGEST_NOISE
    )
    return {**found, "penalties": _checked_penalties(objective.penalties)}


def _checked_penalties(weights: Mapping[str, float]) -> dict[str, float]:
    """Return λ of the penalties that are used, in the order of the registry."""
    if not isinstance(weights, Mapping):
        raise InputError(f'penalties {weights!r}: expected weights by name, such as {{"alp": 0.5}}')
    for name in weights:
        if name not in PENALTIES:
            raise InputError(f"unknown penalty {name!r}: expected one of {', '.join(PENALTIES)}")
    checked = {
        name: number(weights[name], name=name, low=0, high=_LARGEST_WEIGHT)
        for name in PENALTIES
        if name in weights
    }
    return {name: weight for name, weight in checked.items() if weight}
