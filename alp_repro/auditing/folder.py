"""The folder of an audit: one process at a time works in it, and one audit's results lie in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np

from alp_repro import files, runs
from alp_repro.attacks import Attack, Ensemble
from alp_repro.data.images import images_digest
from alp_repro.errors import InputError
from alp_repro.validation.decoding import from_plain

_STEPS = "stages"
# What binaries and users save beside the results of steps.
_RESULTS = ("audit.json", "audit.html", "images.csv", "adversarial.npz")
T = TypeVar("T")


@contextlib.contextmanager
def own_folder(folder: str | Path | None) -> Iterator[Path]:
    """Give the folder to this process alone; None: a temporary one.

    Raises:
      InputError: another process works on an audit there, or it cannot be written to.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    path = files.expanded(folder)
    with files.exclusive(path / _STEPS):
        yield path


def subject(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: Attack | Ensemble,
    seed: int,
) -> dict[str, Any]:
    """Return what makes an audit another one, as plain data; its time does not."""
    what = {
        # A function has no weights, and its outputs may be rounded otherwise the next time.
        "model": runs.weights_hash(model) if model.weights else model.name,
        "data": images_digest(images, labels),
        "attack": attack.to_json(),
        "seed": seed,
    }
    return dict(files.as_json_data(what))


def claim(folder: Path, subject: dict[str, Any]) -> None:
    """Note whose folder it is, so that no other audit replaces what lies there.

    Args:
      folder: of the audit.
      subject: see `subject`.

    Raises:
      InputError: results there are those of another audit, or no audit's at all.
    """
    note = folder / _STEPS / "audit.json"
    found = files.read_json(note) if note.exists() else None
    differing = [] if found is None else [key for key in subject if found.get(key) != subject[key]]
    if (found is None or differing) and (there := _results(folder)):
        whose = f"another audit (of another {' and '.join(differing)})" if differing else "others"
        raise InputError(
            f"{folder} holds results of {whose}, such as {there[0]}: name another folder, or move "
            "this one away"
        )
    if found != subject:
        files.write_json(note, subject)


class SavedResults:
    """The results of the steps of one audit, each a file of plain data in its folder."""

    def __init__(self, folder: Path, subject: dict[str, Any], logits: np.ndarray | None) -> None:
        """Tell this audit's results from those of others.

        Args:
          folder: of the audit.
          subject: see `subject`.
          logits: of the clean images: a function has no weights that could tell; None: the model
            is random.
        """
        digest = hashlib.sha256(json.dumps(subject, sort_keys=True).encode())
        if logits is not None:
            digest.update(np.ascontiguousarray(logits).tobytes())
        self._folder, self._audit = folder / _STEPS, digest.hexdigest()[:16]

    def load(self, name: str) -> Any | None:
        """Return the result of a step; None: there is none, or it is another audit's.

        Raises:
          InputError: the file is not as it was written.
        """
        path = self._folder / f"{name}.json"
        if not path.exists():
            return None
        found = files.read_json(path)
        if found.get("audit") != self._audit:
            return None
        result = found.get("result")
        if found.get("digest") != _digest(result):
            raise InputError(
                f"{path} is damaged (its digest is not that of its result): remove it to have it "
                "computed again"
            )
        return result

    def save(self, name: str, result: Any) -> None:
        """Save the result of a step, plain data."""
        value = {"audit": self._audit, "result": result, "digest": _digest(result)}
        files.write_json(self._folder / f"{name}.json", value)

    def once(self, name: str, kind: type[T], compute: Callable[[], T]) -> T:
        """Return the result of a step, of this type: loaded, or computed and saved."""
        found = self.load(name)
        if found is not None:
            source = str(self._folder / f"{name}.json")
            return from_plain(found, kind, source=source, advice="remove it")
        result = compute()
        self.save(name, result)
        return result


def _digest(result: Any) -> str:
    """Return sixteen hex digits that change with anything in plain data."""
    text = json.dumps(files.as_json_data(result), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _results(folder: Path) -> list[str]:
    found = [name for name in _RESULTS if (folder / name).exists()]
    attacks = files.finished_files(folder / "attacks")
    return found + [str(path.relative_to(folder)) for path in attacks]
