"""Dtypes of crafting and training passes, and which one the hardware multiplies in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, cast

from alp_repro.system import kernels

Dtype = Literal["float32", "bfloat16"]

# Devices of Linux where a driver of NVIDIA or AMD, or of Windows below it, is loaded.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def resolve_dtype(name: str) -> Dtype:
    """Return the dtype of a name; `auto` is bfloat16 if the hardware multiplies it.

    A CPU without such instructions emulates bfloat16, more slowly than float32.
    """
    if name != "auto":
        return cast(Dtype, name)
    if _sees_gpu():
        return "bfloat16"
    return "bfloat16" if kernels.multiply_bfloat16() else "float32"


def _sees_gpu() -> bool:
    """Return whether TensorFlow may use a GPU; it is not imported where no driver is loaded."""
    possible = sys.platform != "linux" or any(Path(file).exists() for file in _GPU_DRIVERS)
    if not possible and "tensorflow" not in sys.modules:
        return False
    import tensorflow as tf

    # Listing logical devices would initialise them.
    return bool(tf.config.get_visible_devices("GPU"))
