"""Work on a model that many processes can share: a plan, and blocks of it.

A plan is prepared once in a process, which loads and compiles what it needs; the function that it
gives then does any block. Blocks are small, and so are their results.
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
    """What many blocks of work have in common."""

    def prepare(self) -> Callable[[Any], Any]:
        """Loads and compiles; returns a function from a block to its result."""


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFile:
    """A model as the bytes of its `.keras` file (uint8 array), to be sent elsewhere.

    Files of one model are equal, though their bytes hold when each was made: what was loaded and
    compiled for one serves all attacks on the model.
    """

    content: np.ndarray
    digest: str  # of architecture and weights

    @classmethod
    def of(cls, model: keras.Model) -> ModelFile:
        """The file of a model.

        Raises:
          InputError: Keras cannot save and load it without its code.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            try:
                runs.save_model(path, model)
                loaded = runs.load_model(path)
                described = f"{loaded.to_json()} {runs.weights_hash(loaded)}"
            except Exception as error:  # Keras raises errors of many kinds for layers of others'
                raise InputError(
                    f"the model {model.name!r} cannot be sent to other machines ({error}): one "
                    "that Keras saves and loads by itself can"
                ) from error
            content = np.fromfile(path, np.uint8)
        return cls(content, hashlib.sha256(described.encode()).hexdigest())

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelFile) and other.digest == self.digest

    def load(self) -> keras.Model:
        """The model, in float32; the same object for the last few files that were asked for."""
        return _loaded(self)


@functools.lru_cache(maxsize=2)
def _loaded(file: ModelFile) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(file.content.tobytes())
        return float32_model(runs.load_model(path))


@dataclasses.dataclass(frozen=True, eq=False)
class AttackPlan:
    """One attack on a set of images, a block being a batch of items.

    Attributes:
      model: what is attacked.
      images: float32 [n, height, width, channels] in [0, 1].
      labels: int32 [n].
      attack, seed: see `evaluation.evaluate`.
      batch_size: items of a block.
      keep_adversarial: a result has the images that broke, too.
    """

    model: ModelFile
    images: np.ndarray
    labels: np.ndarray
    attack: Ensemble
    seed: int
    batch_size: int
    keep_adversarial: bool

    def prepare(self) -> Callable[[AttackBlock], BatchOutcome]:
        """Compiles the attack, with XLA where there is a GPU."""
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
    """The attacks of a heat map, a block being one of its step sizes; see `heat_map`."""

    model: ModelFile
    images: np.ndarray
    labels: np.ndarray
    attack: PGD
    nb_iters: tuple[int, ...]
    seed: int
    batch_size: int

    def prepare(self) -> Callable[[float], np.ndarray]:
        """Compiles the attack, with XLA where there is a GPU."""
        return StepSize(
            self.model.load(),
            self.images,
            self.labels,
            attack=self.attack,
            counts=self.nb_iters,
            seed=self.seed,
            execution=Execution(batch_size=self.batch_size),
        ).broken
