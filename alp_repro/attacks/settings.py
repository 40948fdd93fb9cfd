"""What an attack is: its settings, the numbers a graph takes, the preset `strong`.

Sizes are on the model's input scale, [0, 1].
"""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import numpy as np

from alp_repro.dtypes import Dtype
from alp_repro.errors import InputError
from alp_repro.plain_numbers import shown

if TYPE_CHECKING:
    import tensorflow as tf

Method = Literal["pgd", "apgd", "spsa", "square"]
Loss = Literal["cross_entropy", "margin", "dlr", "mixed"]
StepSchedule = Literal["constant", "linear"]
Success = Literal["last", "any"]
Target = Literal["none", "random", "least_likely", "each", "rotate"]
Engine = Literal["loop", "cleverhans"]
# The settings that are a choice of words, and the words.
CHOICES = {
    "method": Method,
    "loss": Loss,
    "step_schedule": StepSchedule,
    "success": Success,
    "target": Target,
    "dtype": Dtype,
    "engine": Engine,
}
# What the paper's tables vary of PGD and print at the head of every column.
_VARIED = ("eps", "eps_iter", "nb_iter", "restarts")
# How the steps are computed, not which: results in another dtype or by Cleverhans' own loop are
# compared with the paper's numbers, and say so.
EXECUTION = ("dtype", "engine")
# Settings that every stored result has. A later field is stored where it departs from its default,
# so that results of before it was there are still found.
_ALWAYS_STORED = (
    "eps",
    "eps_iter",
    "nb_iter",
    "restarts",
    "method",
    "loss",
    "step_schedule",
    "momentum",
    "gradient_noise",
    "success",
    "target",
    "random_start",
    "dtype",
    "engine",
)
# Under a budget: restarts that every image gets, that those that came closest get, and the closest
# of these.
BUDGET_ROUNDS = (2, 7, 19)
# The restart, from 0, that is an attack's search where it has one: the last of the second round.
SEARCH_RESTART = BUDGET_ROUNDS[1] - 1
# What a query costs in gradients: a forward pass, where a gradient is a forward and a backward one.
QUERY_COST = 0.5
MOST_STEPS, _MOST_RESTARTS, _LARGEST_NOISE = 10**6, 10**7, 10.0
_SIZE = {"size": True}  # marks a field that people read and write on the 0-255 scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """Settings of one L∞ attack; sizes are on the model's input scale [0, 1] (76.5/255 = 0.3).

    Attributes:
      eps: radius of the ball; 0 leaves the clean images.
      eps_iter: size of a sign step (of the first one under the linear schedule). SPSA: Adam's
        learning rate. APGD, which begins with 2·eps, and Square ignore it.
      nb_iter: steps of one restart; Square's queries.
      restarts: independent full runs, each from its own start (paper: r).
      method: `pgd` (Madry et al. 2017), `apgd` (Croce & Hein 2020), `spsa` (Uesato et al. 2018),
        `square` (Andriushchenko et al. 2020): random search, which asks for no gradient; its
        authors' loss is the margin.
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
        `rotate`: restarts in turns of three: aimed as those of `each` in turn; without a target,
        gradient_noise and momentum; aimed like the first, without gradient_noise and momentum. The
        latter two take steps of `plain_step` times the first's.
        An image is broken when its prediction is not the true label, whatever the target.
      random_start: uniform in the ball, clipped to [0, 1]; otherwise the clean image.
      dtype: of the crafting passes; the verdict is always float32.
      budget: gradients an image, on average over all images of an evaluation; 0: no bound. The
        first restarts of BUDGET_ROUNDS are of all images, the next of as many as the rest pays
        for, those that had the largest loss after the first, and the last of as many of these as
        it still pays for: what an image gets depends on the images beside it, what a restart does
        to it does not.
      search: restart SEARCH_RESTART, from 0, is a Square attack of so many queries, in float32: it
        finds what no gradient leads to. A query is a forward pass, and so counts as half a
        gradient. 0: none.
      plain_step: see target `rotate`.
      engine: `loop` is ours; `cleverhans` calls `projected_gradient_descent` itself (reference:
        reproducible for equal batches only, since its starts are stateful).

    Raises:
      InputError: a size or count out of range, or an unknown choice, named with what is allowed.
    """

    eps: float = dataclasses.field(metadata=_SIZE)
    eps_iter: float = dataclasses.field(metadata=_SIZE)
    nb_iter: int
    restarts: int = 1
    method: Method = "pgd"
    loss: Loss = "cross_entropy"
    step_schedule: StepSchedule = "constant"
    momentum: float = 0.0
    gradient_noise: float = dataclasses.field(default=0.0, metadata=_SIZE)
    success: Success = "last"
    target: Target = "none"
    random_start: bool = True
    dtype: Dtype = "float32"
    engine: Engine = "loop"
    budget: int = 0
    search: int = 0
    plain_step: float = 1.0

    def __post_init__(self) -> None:
        """Makes numbers of NumPy's plain ones and checks every setting."""
        for name, kind in _plain_kinds(type(self)).items():
            object.__setattr__(self, name, _plain(name, getattr(self, name), kind))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                given = shown(getattr(self, name))
                raise InputError(f"attack {name}={given}: one of {', '.join(get_args(choices))}")
        self._check_sizes()
        self._check_combinations()

    def _check_sizes(self) -> None:
        smallest = float(np.finfo(np.float32).tiny)
        if not (self.eps == 0 or smallest <= self.eps <= 1):
            raise InputError(
                f"attack eps {self.eps * 255:g}: 0, or a size up to 255 on the 0-255 scale that "
                "float32 holds, is needed"
            )
        # APGD has steps of its own, SPSA takes it for a learning rate. A single step may cross the
        # ball from a random start: fast adversarial training has 1.25·eps (Wong et al. 2020).
        longest = self.eps * (2 if self.nb_iter == 1 else 1)
        within = smallest <= self.eps_iter <= longest if self.eps else 0 <= self.eps_iter <= 1
        if not within and self.method == "pgd":
            raise InputError(
                f"attack eps_iter {self.eps_iter * 255:g}: a step in (0, eps], or (0, 2 eps] where "
                f"it is the only one, is needed; eps is {self.eps * 255:g} (0-255 scale)"
            )
        if not np.isfinite(self.eps_iter):
            raise InputError(f"attack eps_iter {self.eps_iter:g}: a finite number is needed")
        for name, most in (("nb_iter", MOST_STEPS), ("restarts", _MOST_RESTARTS)):
            count = getattr(self, name)
            if count < 1:
                raise InputError(f"attack {name} {shown(count)}: a count of 1 or more is needed")
            if count > most:
                raise InputError(
                    f"attack {name} {shown(count)}: more than {most:,} is out of reach"
                )
        most = BUDGET_ROUNDS[-1]
        if not 0 <= self.budget <= MOST_STEPS or (self.budget and self.restarts > most):
            raise InputError(
                f"attack budget {shown(self.budget)}, restarts {self.restarts}: a budget of 0 (no "
                f"bound), or one up to {MOST_STEPS:,} and at most {most} restarts are needed"
            )
        if not 0 <= self.search <= MOST_STEPS:
            raise InputError(
                f"attack search {shown(self.search)}: 0 (none) or a count of queries up to "
                f"{MOST_STEPS:,} is needed"
            )
        if not (0 <= self.momentum < 1 and 0 <= self.gradient_noise <= _LARGEST_NOISE):
            raise InputError(
                f"attack momentum {self.momentum:g}, gradient_noise {self.gradient_noise * 255:g}: "
                f"a share in [0, 1) and a size of 0 to {_LARGEST_NOISE * 255:g} are needed"
            )
        if not 0 < self.plain_step <= 1:
            raise InputError(f"attack plain_step {self.plain_step:g}: a share in (0, 1] is needed")

    def _check_combinations(self) -> None:
        if (self.momentum or self.gradient_noise) and self.method != "pgd":
            raise InputError(f"attack {self.method}: momentum and gradient_noise are PGD's")
        if self.gradient_noise and self.success == "any":
            raise InputError(
                "attack success=any: an iterate's own logits are needed, and with gradient_noise "
                "they are never computed; success=last works"
            )
        gradient_steps = self.method in ("pgd", "apgd") and self.engine == "loop"
        if self.target == "rotate" and not gradient_steps:
            raise InputError("attack target=rotate: our loop's pgd and apgd alone know it")
        if self.plain_step != 1 and (self.target != "rotate" or self.method != "pgd"):
            raise InputError("attack plain_step: PGD with target=rotate alone knows it")
        if self.engine == "cleverhans":
            known = ("engine", "target", "random_start")
            if ours := self.departures_text(leaving_out=known):
                raise InputError(
                    f"attack engine=cleverhans: {ours} is ours alone; its "
                    "projected_gradient_descent knows a constant step, the cross-entropy, the last "
                    "iterate and float32 only"
                )

    @property
    def gradients(self) -> int:
        """What an image costs at the most, on average over the images (Square: in queries)."""
        ends = np.array([min(self.restarts, BUDGET_ROUNDS[0]), self.restarts])
        first, most = restarts_cost(self.to_json(), ends).tolist()
        return min(most, max(self.budget, first)) if self.budget else most

    def departures(self, *, leaving_out: Collection[str] = ()) -> dict[str, Any]:
        """How this attack differs from the paper's PGD: {setting: value}, sizes on [0, 1].

        The paper varies eps, eps_iter, nb_iter and restarts; every other field, whichever there
        are, departs where its value is not its default. Tables, captions, progress lines, file
        names and refusals ask here, so that no field can be forgotten.

        Args:
          leaving_out: fields that do not count, as `EXECUTION` for whether the attack is another.
        """
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in (*_VARIED, *leaving_out)
            and getattr(self, field.name) != field.default
        }

    def departures_text(self, *, leaving_out: Collection[str] = ()) -> str:
        """`departures` in one line as flags write them, sizes on the 0-255 scale; "" for none."""
        found = self.departures(leaving_out=leaving_out)
        return " ".join(f"{name}={self._shown(name, value)}" for name, value in found.items())

    def __str__(self) -> str:
        """One line for captions and progress, sizes on the 0-255 scale."""
        words = [self.method, f"eps={self._shown('eps', self.eps)}"]
        if self.method == "spsa":
            words.append(f"learning_rate={self.eps_iter:g}")
        elif self.method == "pgd":
            words.append(f"eps_iter={self._shown('eps_iter', self.eps_iter)}")
        words += [f"n={self.nb_iter}", f"r={self.restarts}"]
        return " ".join([*words, self.departures_text(leaving_out=("method",))]).rstrip()

    def _shown(self, name: str, value: Any) -> str:
        (field,) = (f for f in dataclasses.fields(self) if f.name == name)
        if field.metadata.get("size"):
            return f"{value * 255:g}"
        return str(value).lower() if isinstance(value, bool) else str(value)

    def to_json(self) -> dict[str, Any]:
        """The settings as results store them; equal for equal attacks, whichever fields come."""
        departing = self.departures()
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name in _ALWAYS_STORED or name in departing
        }


def size_settings() -> frozenset[str]:
    """Names of the settings that flags and tables have on the 0-255 scale."""
    return frozenset(f.name for f in dataclasses.fields(Attack) if f.metadata.get("size"))


def _plain_kinds(attack: type) -> dict[str, type]:
    """The fields that are numbers or truth values, with their types."""
    hints = get_type_hints(attack)
    names = [field.name for field in dataclasses.fields(attack)]
    return {name: hints[name] for name in names if hints[name] in (float, int, bool)}


def _plain(name: str, value: Any, kind: type) -> Any:
    """A value as plain Python has it: results are written as JSON."""
    if kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, bool | np.bool_) or kind is bool:
        pass
    elif kind is int and isinstance(value, numbers.Integral):
        return int(value)
    elif kind is float and isinstance(value, numbers.Real):
        with contextlib.suppress(OverflowError):
            return float(value)
    needed = {int: "a whole number", float: "a number", bool: "True or False"}[kind]
    raise InputError(f"attack {name}={shown(value)}: {needed} is needed")


def restarts_cost(attack: dict[str, Any], restarts: np.ndarray) -> np.ndarray:
    """Int: gradients that an image's first so many restarts take, of an attack as stored."""
    queries = attack.get("search", 0)
    searches = restarts > SEARCH_RESTART if queries else np.zeros_like(restarts)
    return attack["nb_iter"] * (restarts - searches) + searches * int(QUERY_COST * queries)


@dataclasses.dataclass(frozen=True)
class StepSizes:
    """An attack's numbers as a graph takes them, input scale.

    As tensors they let one compiled program serve attacks that differ in nothing else, and a
    training grow its ball.
    """

    eps: tf.Tensor | float
    eps_iter: tf.Tensor | float
    nb_iter: tf.Tensor | int


def strong_attack(eps: float, *, dtype: Dtype = "float32") -> Attack:
    """Our preset `strong`: 450 gradients an image on average (docs/performance.md).

    Two to eighteen runs of 100 steps that fall linearly, in turns of three, and a search. The first
    of a turn is aimed at another wrong class by gradients at noisy points that momentum averages,
    with steps from ε: a distorted surface, as of CLP and LSQ, hides its way up from the true
    label's loss at the point itself, not from these. The second has no target and the third is
    aimed like the first, both by the point's own gradients and with steps from ε/8: on smooth
    surfaces, as of adversarially trained models, these find what the first pass over. What two runs
    have left far from its boundary hardly anything breaks: further runs go to the images that came
    closest, and after six a Square attack, which finds what no gradient of theirs leads to. The
    sizes were found on MNIST.
    """
    return Attack(
        eps=eps,
        eps_iter=eps,
        nb_iter=100,
        restarts=19,
        loss="mixed",
        step_schedule="linear",
        momentum=0.75,
        gradient_noise=4 * _plain("eps", eps, float),
        target="rotate",
        budget=450,
        search=5000,
        plain_step=0.125,
        dtype=dtype,
    )
