"""Dtypes of crafting and training passes, and which one the hardware multiplies in."""

from __future__ import annotations

from typing import Literal, cast

import tensorflow as tf

from alp_repro import kernels

Dtype = Literal["float32", "bfloat16"]


def resolve_dtype(name: str) -> Dtype:
    """The crafting dtype a name stands for; `auto`: bfloat16 where the hardware multiplies in it.

    A CPU without such instructions emulates bfloat16, more slowly than float32.
    """
    if name != "auto":
        return cast(Dtype, name)
    if tf.config.get_visible_devices("GPU"):  # asking for logical ones would settle the devices
        return "bfloat16"
    return "bfloat16" if kernels.multiply_bfloat16() else "float32"
