"""The state of an unfinished training: saved after each epoch, checked when it is loaded."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

import keras
import numpy as np

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.system.effort import Stopwatch
from alp_repro.training.logit_pairing import LogitPairing
from alp_repro.training.ownership import Owner, check_same


class Backup(keras.callbacks.Callback):
    """Saves the whole state of an unfinished training after each epoch, in one file.

    Keras' BackupAndRestore writes weights and epoch in place, one after the other: a process that
    is killed in between leaves a state that cannot be read, or weights of another epoch. The file
    has the training's settings and a checksum.
    """

    def __init__(self, run: runs.RunDir, owner: Owner) -> None:
        """Use the run's backup folder."""
        super().__init__()
        self._run, self._owner = run, owner
        self._path = run.backup / "latest.npz"
        self._older = run.backup / "latest.weights.h5"  # of a version without a checksum
        self._earlier: list[dict[str, Any]] = []
        self._session: dict[str, Any] = {}
        self._clock = Stopwatch()

    def restore(self, model: LogitPairing, *, steps_per_epoch: int) -> int:
        """Load the state of an earlier process into a compiled model; return the epochs done.

        Raises:
          InputError: the file is damaged or is the state of another training.
        """
        if self._path.exists():
            self._restore_arrays(model)
        elif self._older.exists():
            self._restore_older(model)
        else:
            return 0
        # The state is from the end of an epoch; the last epoch may have fewer steps.
        return -(-int(model.optimizer.iterations.numpy()) // steps_per_epoch)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Provenance of every process that finished an epoch, with epochs and time spent."""
        return [*self._earlier, self._session] if self._session.get("epochs") else self._earlier

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a session."""
        self._session, self._clock = {**runs.provenance(), "epochs": 0}, Stopwatch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save weights, optimizer and averages."""
        arrays = {f"{i:04}": np.asarray(v) for i, v in enumerate(_variables(self.model))}
        owner = self._owner.to_json()
        self._session |= {"epochs": self._session["epochs"] + 1, **self._clock.spent()}
        notes = {"checksum": _checksum(arrays, owner), "sessions": self.sessions}
        files.write_arrays(self._path, arrays, owner=owner, **notes)
        self._older.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the state of a finished training."""
        shutil.rmtree(self._path.parent, ignore_errors=True)

    def _restore_arrays(self, model: LogitPairing) -> None:
        advice = f"remove {self._path} to train from the beginning"
        variables = _variables(model)
        try:
            with files.opened_arrays(self._path) as file:
                arrays = {name: file[name] for name in file.files}
            # Older versions did not record sessions.
            self._earlier = json.loads(str(arrays.pop("sessions", "[]")))
            owner, stored = (json.loads(str(arrays.pop(name))) for name in ("owner", "checksum"))
            if _checksum(arrays, owner) != stored:
                raise ValueError("its checksum does not match")
        except Exception as error:  # NumPy raises errors of many kinds for a damaged file
            line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(f"{self._path} is damaged ({line}): {advice}") from error
        check_same(Owner.from_json(owner, source=str(self._path)), self._owner, self._run)
        shapes = [tuple(variable.shape) for variable in variables]
        if [array.shape for array in arrays.values()] != shapes:
            raise InputError(f"{self._path} is the state of another model: {advice}")
        for variable, array in zip(variables, arrays.values(), strict=True):
            variable.assign(array)

    def _restore_older(self, model: LogitPairing) -> None:
        path = self._older
        if not self._run.settings.exists():
            raise InputError(
                f"{path} is the state of an unknown training, since the run has no settings.json: "
                "remove it to train from the beginning"
            )
        start = _kernels(model)
        try:
            model.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} is damaged ({str(error).strip().splitlines()[0]}): remove it to train "
                "from the beginning"
            ) from error
        if not _stem_from(_kernels(model), start):
            raise InputError(
                f"{path} is the state of another training: its weights do not come from this one's "
                f"initial weights (seed {self._owner.recipe.seed}); restore the run's own state, "
                "or remove it to train from the beginning"
            )
        print(f"{path} was written by a version without checksums: loaded unchecked", flush=True)


def _kernels(model: LogitPairing) -> np.ndarray:
    """Return all weights with a random start in one vector, float64."""
    kernels = [w for w in model.classifier.trainable_variables if len(w.shape) > 1]
    return np.concatenate([np.ravel(kernel.numpy()).astype(np.float64) for kernel in kernels])


def _stem_from(weights: np.ndarray, start: np.ndarray) -> bool:
    """Return whether weights can come from these initial ones by training.

    The correlation of independent weights has a standard deviation of 1 / √n, so five of them occur
    by chance in one of three million cases; after training, the correlation with the initial
    weights is far larger.
    """
    correlation = np.corrcoef(weights, start)[0, 1]
    return bool(correlation > 5 / np.sqrt(len(start)))


def _variables(model: LogitPairing) -> list[keras.Variable]:
    """Return all variables that a training changes, in an order that depends only on the recipe."""
    return [*model.classifier.variables, *model.optimizer.variables]


def _checksum(arrays: dict[str, np.ndarray], owner: Any) -> str:
    digest = hashlib.sha256(json.dumps(owner, sort_keys=True).encode())
    for name, array in arrays.items():
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
