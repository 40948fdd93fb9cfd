"""The runs folder: where a model, its log and its results are, how they are written and checked.

runs/<scale>/<dataset>/<row>/
  model.keras            the trained weights (raw, not averaged)
  averages.keras         their moving average, if the recipe has one
  settings.json          the recipe that this folder belongs to
  recipe.json            the recipe, its provenance and the hash of the weights
  training.csv           one line an epoch
  backup/                the state of an unfinished training
  attacks/<attack>.npz   one result per attack (see `evaluation.AttackRecord`)
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import platform
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import shipped
from alp_repro.errors import InputError
from alp_repro.files import (
    as_json_data,
    exclusive,
    expanded,
    remove_leftover,
    write_atomically,
)
from alp_repro.system import kernels, machine
from alp_repro.validation import decoding
from alp_repro.versions import VERSION, package_versions

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class RunDir:
    """The folder of one trained model; `path` may not exist yet."""

    path: Path

    @property
    def model(self) -> Path:
        """File of the raw weights and the architecture."""
        return self.path / "model.keras"

    @property
    def averages(self) -> Path:
        """File of the moving average of the weights."""
        return self.path / "averages.keras"

    @property
    def recipe(self) -> Path:
        """File of the recipe and provenance of the training."""
        return self.path / "recipe.json"

    @property
    def settings(self) -> Path:
        """File of the settings that the folder belongs to, written first."""
        return self.path / "settings.json"

    @property
    def log(self) -> Path:
        """File of the losses and accuracies by epoch."""
        return self.path / "training.csv"

    @property
    def backup(self) -> Path:
        """Folder of the state of an unfinished training."""
        return self.path / "backup"

    @property
    def attacks(self) -> Path:
        """Folder of the results of attacks."""
        return self.path / "attacks"

    @property
    def finished(self) -> bool:
        """Return whether the model is trained."""
        return self.model.exists() and self.recipe.exists()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Create the folder, lock it for this process, and remove what a killed process left.

        Raises:
          InputError: another process works on it, or it cannot be written to.
        """
        with exclusive(self.model):
            for folder in (self.path, self.backup):
                for temporary in folder.glob(".[0-9]*.*"):
                    remove_leftover(temporary)
            yield


@dataclasses.dataclass(frozen=True)
class Description:
    """The content of a run's recipe.json, as far as other modules need it; see `describe`.

    Attributes:
      recipe: plain data, see `training.Recipe.from_json`; of an imported run only its model.
      weights: `weights_hash` of the model.
      imported: what an imported run was made from, plain data; None: it was trained.
      at_chance: the training ended with the accuracy of guessing.
    """

    recipe: dict[str, Any]
    weights: str
    imported: dict[str, Any] | None = None
    at_chance: bool = False


def describe(run: RunDir) -> Description:
    """Read a run's recipe.json; InputError if it is absent, damaged or incomplete."""
    return decoding.read_json(
        run.recipe, Description, extra_keys=True, advice="restore it, or remove the run's folder"
    )


def save_model(path: Path, model: keras.Model) -> None:
    """Write architecture and weights as a `.keras` file atomically.

    Raises:
      InputError: the disk is full or not writable, or the system's clock is before 1980.
    """
    try:
        write_atomically(path, lambda file: model.save(file))
    except (ValueError, struct.error) as error:
        year = time.localtime(time.time()).tm_year
        if 1980 <= year <= 2107:
            raise
        raise InputError(
            f"could not write {path}: a .keras file, which is a zip file, cannot store the date of "
            f"the system's clock ({year}); set the clock and try again"
        ) from error


def load_model(path: str | Path) -> keras.Model:
    """Load a model from a `.keras` file; no code in it is run.

    Raises:
      InputError: the file is absent, truncated, or not a Keras model.

    Examples:
      >>> layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
      >>> model = keras.Sequential(layers)
      >>> model.save("model.keras")
      >>> alp_repro.load_model("model.keras").output_shape
      (None, 3)
    """
    import keras

    path = expanded(path)
    try:
        with path.open("rb") as file:
            is_zip = zipfile.is_zipfile(file)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: train the model first") from None
    except OSError as error:
        raise InputError(f"{path} could not be read ({error.strerror})") from error
    if not is_zip:
        raise InputError(f"{path} is truncated or not a .keras file: remove it and train again")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises errors of many kinds for a damaged or foreign file
        raise InputError(f"no Keras model could be loaded from {path} ({error})") from error


def weights_hash(model: keras.Model) -> str:
    """Return sixteen hex digits that change with any weight, its shape or its place."""
    return hash_of_arrays(model.get_weights())


def hash_of_arrays(weights: Iterable[np.ndarray]) -> str:
    """Return the `weights_hash` of a model with these weights."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(f"{weight.shape}{weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]


def provenance() -> dict[str, Any]:
    """Return when, with what code and on what machine a result was made; plain data."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": [_without_checkout(argument) for argument in sys.argv],
        "revision": code_revision(),
        "python": platform.python_version(),
        "versions": package_versions(),
        "machine": machine.describe(),
        "kernels": kernels.describe(),
    }


def _without_checkout(argument: str) -> str:
    """Make a path in the checkout relative to it, as other machines have it elsewhere."""
    root = shipped.checkout()
    return argument if root is None else argument.replace(f"{root}{os.sep}", "")


def is_stored(path: Path, content: dict[str, Any]) -> bool:
    """Return whether a JSON file has this content already, apart from its provenance."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    made = provenance()
    return isinstance(kept, dict) and all(
        kept.get(key) == value for key, value in as_json_data(content).items() if key not in made
    )


def code_revision() -> str:
    """Return the code's git revision, with `+changes` if it differs; or the package's version."""
    folder = Path(__file__).resolve().parent
    git = ["git", "-C", str(folder)]
    try:
        # A package installed inside another project's checkout is not that project's revision.
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", __file__], check=True, capture_output=True
        )
        revision = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"alp_repro {VERSION}"
    return revision + ("+changes" if changed else "")
