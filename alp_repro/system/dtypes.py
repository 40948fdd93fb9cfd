"""Dtypes of crafting and training passes, and which one the hardware multiplies in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, cast

from alp_repro.system import kernels

Dtype = Literal["float32", "bfloat16"]

# What Linux has where a driver of NVIDIA, of AMD or of Windows beneath it is loaded.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def resolve_dtype(name: str) -> Dtype:
    """The crafting dtype a name stands for; `auto`: bfloat16 where the hardware multiplies in it.

    A CPU without such instructions emulates bfloat16, more slowly than float32.
    """
    if name != "auto":
        return cast(Dtype, name)
    if _sees_gpu():
        return "bfloat16"
    return "bfloat16" if kernels.multiply_bfloat16() else "float32"


def _sees_gpu() -> bool:
    """Whether TensorFlow may use a GPU; it is not imported only to hear that there is none."""
    possible = sys.platform != "linux" or any(Path(file).exists() for file in _GPU_DRIVERS)
    if not possible and "tensorflow" not in sys.modules:
        return False
    import tensorflow as tf

    # Asking for logical ones would settle the devices.
    return bool(tf.config.get_visible_devices("GPU"))
