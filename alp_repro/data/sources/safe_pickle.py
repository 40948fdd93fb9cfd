"""Unpickling of CIFAR-10's Python batches without running any code that they name.

A pickle may call anything it can import. Here nothing is imported: the four names that a pickled
NumPy array needs are mapped to inert classes of this module that record the array's raw bytes, and
any other name is refused.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from alp_repro.errors import InputError


class _ArrayRecord:
    """Replaces a NumPy array: keeps the state that the pickle sets."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _DtypeRecord:
    """Replaces a NumPy dtype: keeps its code ("u1") and ignores byte order."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        pass


def _reconstruct(*_: object) -> _ArrayRecord:
    return _ArrayRecord()


def _encode(text: object, *_: object) -> bytes:
    """Replace `_codecs.encode`, which Python 3 puts into old-protocol pickles of bytes."""
    if not isinstance(text, str):
        raise pickle.UnpicklingError("bytes are not pickled as text")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _ArrayRecord,
    ("numpy", "dtype"): _DtypeRecord,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR-10 batch does")
        return _ALLOWED[module, name]


def read_batch(content: bytes, *, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels uint8 [n, 3072] and labels int64 [n] of a pickled CIFAR-10 batch.

    Raises:
      InputError: it is not such a batch or names anything else; the message has the file's name.
    """
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        pixels = _pixels(batch[b"data"])
        labels = np.array([int(label) for label in batch[b"labels"]], np.int64)
    except Exception as error:  # a broken pickle can raise anything
        raise InputError(f"{name} is not a CIFAR-10 Python batch: {error!r}") from error
    if len(labels) != len(pixels):
        raise InputError(f"{name} has {len(pixels)} images but {len(labels)} labels")
    return pixels, labels


def _pixels(record: object) -> np.ndarray:
    if not isinstance(record, _ArrayRecord) or not isinstance(record.state, tuple):
        raise ValueError("expected an array as data")
    _, shape, dtype, fortran, data = record.state
    if dtype.code != "u1" or fortran or len(shape) != 2 or shape[1] != 3072:
        raise ValueError(f"expected u1 (n, 3072) as data, got {dtype.code} {shape}")
    return np.frombuffer(data, np.uint8).reshape(shape)
