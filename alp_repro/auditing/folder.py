"""The folder of an audit: one process at a time works in it, and one audit's results lie in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from alp_repro import files, runs
from alp_repro.attacks import Attack, Ensemble
from alp_repro.data.images import images_digest
from alp_repro.errors import InputError

# What binaries and users save beside the stages.
_RESULTS = ("audit.json", "audit.html", "images.csv", "adversarial.npz")


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
    with files.exclusive(path / "stages"):
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


def claim(folder: Path, subject: dict[str, Any], *, ours: bool) -> None:
    """Note whose folder it is, so that no other audit replaces what lies there.

    Args:
      folder: of the audit.
      subject: see `subject`.
      ours: a stage of this audit lies there; for folders of a time before there was a note.

    Raises:
      InputError: results there are those of another audit, or no audit's at all.
    """
    note = folder / "stages" / "audit.json"
    found = files.read_json(note) if note.exists() else None
    differing = [] if found is None else [key for key in subject if found.get(key) != subject[key]]
    if found is None and ours:
        pass
    elif (found is None or differing) and (there := _results(folder)):
        whose = f"another audit (of another {' and '.join(differing)})" if differing else "others"
        raise InputError(
            f"{folder} holds results of {whose}, such as {there[0]}: name another folder, or move "
            "this one away"
        )
    if found != subject:
        files.write_json(note, subject)


def _results(folder: Path) -> list[str]:
    found = [name for name in _RESULTS if (folder / name).exists()]
    # Names with a dot are what a process that was killed while writing left behind.
    attacks = sorted(folder.glob("attacks/[!.]*.npz"))
    return found + [str(path.relative_to(folder)) for path in attacks]


def write_stage(file: Path, result: Any, *, audit: str) -> None:
    """Keep the result of a stage, plain data, with whose it is and a digest of it."""
    files.write_json(file, {"audit": audit, "result": result, "digest": _digest(result)})


def read_stage(file: Path, *, audit: str) -> Any | None:
    """Return what a stage was kept as; None when it was not, or was of another audit.

    Raises:
      InputError: the file is not as it was written.
    """
    if not file.exists():
        return None
    found = files.read_json(file)
    if found.get("audit") != audit:
        return None
    result = found.get("result")
    # Files of a time before there was a digest have none.
    if found.get("digest") not in (None, _digest(result)):
        raise InputError(
            f"{file} is damaged (its digest is not that of its result): remove it to have it made "
            "again"
        )
    return result


def _digest(result: Any) -> str:
    """Return sixteen hex digits that change with anything in plain data."""
    text = json.dumps(files.as_json_data(result), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
