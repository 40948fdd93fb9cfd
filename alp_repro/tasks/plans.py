"""Plans: work on a model that many processes can share, block by block.

A process prepares a plan once, which loads and compiles what it needs; the resulting function then
computes any block. Blocks are small, and so are their results.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from alp_repro import runs
from alp_repro.attacks.batches import BatchOutcome, Execution
from alp_repro.attacks.programs import phases_program
from alp_repro.errors import InputError
from alp_repro.evaluation.heat_maps import StepSize
from alp_repro.models.copies import float32_model

if TYPE_CHECKING:
    import keras

    from alp_repro.attacks import PGD, Ensemble

# Blocks of an attack: the images and restarts of a batch of items.
AttackBlock = tuple[np.ndarray, np.ndarray]


class Plan(Protocol):
    """The common part of many blocks of work."""

    def prepare(self) -> Callable[[Any], Any]:
        """Load and compile; return a function from a block to its result."""


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFile:
    """A model as the bytes of its `.keras` file (uint8 array), to send to other processes.

    Files of the same model are equal, although their bytes contain their dates, so that a model is
    loaded and compiled once for all attacks.
    """

    content: np.ndarray
    digest: str  # of architecture and weights

    @classmethod
    def of(cls, model: keras.Model) -> ModelFile:
        """Return the file of a model.

        Raises:
          InputError: Keras cannot save and load it without its code.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            try:
                runs.save_model(path, model)
                loaded = runs.load_model(path)
                described = f"{loaded.to_json()} {runs.weights_hash(loaded)}"
            except Exception as error:  # Keras raises errors of many kinds for users' layers
                raise InputError(
                    f"the model {model.name!r} cannot be sent to other machines ({error}): "
                    "expected one that Keras can save and load without other code"
                ) from error
            content = np.fromfile(path, np.uint8)
        return cls(content, hashlib.sha256(described.encode()).hexdigest())

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelFile) and other.digest == self.digest

    def load(self) -> keras.Model:
        """Load the model in float32; the last few files return the same object again."""
        return _loaded(self)


@functools.lru_cache(maxsize=2)
def _loaded(file: ModelFile) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(file.content.tobytes())
        return float32_model(runs.load_model(path))


@dataclasses.dataclass(frozen=True, eq=False)
class AttackPlan:
    """One attack on a set of images; a block is a batch of items.

    Attributes:
      model: the model to attack.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      attack, seed: see `evaluation.evaluate`.
      batch_size: items in a block.
      keep_adversarial: a result contains the adversarial images, too.
    """

    model: ModelFile
    images: np.ndarray
    labels: np.ndarray
    attack: Ensemble
    seed: int
    batch_size: int
    keep_adversarial: bool

    def prepare(self) -> Callable[[AttackBlock], BatchOutcome]:
        """Compile the attack, with XLA if there is a GPU."""
        program = phases_program(
            self.model.load(),
            self.images,
            self.labels,
            attack=self.attack,
            seed=self.seed,
            execution=Execution(batch_size=self.batch_size),
        )

        def block(items: AttackBlock) -> BatchOutcome:
            outcome = program(*items)
            if self.keep_adversarial:
                return outcome
            return outcome._replace(adversarial=outcome.adversarial[:0])

        return block


@dataclasses.dataclass(frozen=True, eq=False)
class MapPlan:
    """The attacks of a heat map, see `heat_map`; a block is one of its step sizes."""

    model: ModelFile
    images: np.ndarray
    labels: np.ndarray
    attack: PGD
    nb_iters: tuple[int, ...]
    seed: int
    batch_size: int

    def prepare(self) -> Callable[[float], np.ndarray]:
        """Compile the attack, with XLA if there is a GPU."""
        return StepSize(
            self.model.load(),
            self.images,
            self.labels,
            attack=self.attack,
            counts=self.nb_iters,
            seed=self.seed,
            execution=Execution(batch_size=self.batch_size),
        ).broken
