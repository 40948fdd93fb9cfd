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
from alp_repro.errors import InputError
from alp_repro.evaluation.restarts import AttackJob
from alp_repro.models.copies import float32_model

if TYPE_CHECKING:
    import keras

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
class ModelPlan:
    """Work on a model that travels as a file.

    Attributes:
      model: the model.
      make: a function of the model that compiles, and returns the function of a block; pickled.
    """

    model: ModelFile
    make: Callable[[keras.Model], Callable[[Any], Any]]

    def prepare(self) -> Callable[[Any], Any]:
        """Load the model, and compile."""
        return self.make(self.model.load())


def attack_plan(job: AttackJob) -> ModelPlan:
    """Return the plan of an attack, compiled with XLA where there is a GPU; see `AttackBlock`."""
    execution = Execution(batch_size=job.execution.batch_size)
    bare = dataclasses.replace(job, model=None, execution=execution)
    return ModelPlan(ModelFile.of(job.model), functools.partial(_attack_blocks, bare))


def _attack_blocks(job: AttackJob, model: keras.Model) -> Callable[[AttackBlock], BatchOutcome]:
    program = dataclasses.replace(job, model=model).program()

    def block(items: AttackBlock) -> BatchOutcome:
        outcome = program(*items)
        if job.keep_adversarial:
            return outcome
        return outcome._replace(adversarial=outcome.adversarial[:0])

    return block
