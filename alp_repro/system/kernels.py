"""Chooses the kernels that TensorFlow uses on a CPU, before it is imported.

TensorFlow leaves oneDNN's kernels off on x86 processors without AVX-512 VNNI, where they take half
the time for our models (docs/performance.md). It reads its setting once, when it is imported, so
`choose` must come first: importing `alp_repro` does it.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import sys
from typing import Literal

from alp_repro.system import machine

SETTING = "TF_ENABLE_ONEDNN_OPTS"
_LIMIT = "ONEDNN_MAX_CPU_ISA"
_X86 = ("x86_64", "AMD64")
# Limits under which oneDNN uses no instruction that multiplies bfloat16.
_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
_log = logging.getLogger(__name__)


@functools.cache
def choose() -> None:
    """Turn on oneDNN's kernels on x86 processors, unless the user has set the variable.

    If TensorFlow was imported before, and runs without them, a warning is logged.
    """
    if platform.machine() not in _X86 or SETTING in os.environ:
        return
    if "tensorflow" not in sys.modules:
        os.environ[SETTING] = "1"
    elif not uses_onednn():
        _log.warning(
            "TensorFlow was imported before alp_repro and runs without oneDNN's kernels, which "
            "take about half the time on this processor: import alp_repro first, or set %s=1",
            SETTING,
        )


def uses_onednn() -> bool:
    """Return whether TensorFlow uses oneDNN's kernels in this process."""
    setting = os.environ.get(SETTING)
    if setting is None:
        return platform.machine() in _X86 and "avx512_vnni" in machine.instructions()
    return setting.lower() in ("1", "true")


def multiply_bfloat16() -> bool:
    """Return whether the kernels have instructions that multiply bfloat16.

    Without them bfloat16 is emulated, several times more slowly than float32.
    """
    if not uses_onednn() or os.environ.get(_LIMIT, "").upper() in _WITHOUT_BFLOAT16:
        return False
    return bool(machine.instructions() & {"amx_bf16", "avx512_bf16"})


def lack_bfloat16() -> bool:
    """Return whether bfloat16 cannot be computed here at all.

    If a setting keeps oneDNN from instructions that the processor has, TensorFlow still requests
    kernels that use them: some fail, and some crash the process.
    """
    limited = os.environ.get(_LIMIT, "").upper() in _WITHOUT_BFLOAT16
    return limited and bool(machine.instructions() & {"amx_bf16", "avx512_bf16"})


def describe() -> str:
    """Return the kernels in a few words, for provenance and the first line of a command."""
    kernels: Literal["oneDNN", "Eigen"] = "oneDNN" if uses_onednn() else "Eigen"
    limit = os.environ.get(_LIMIT)
    return f"{kernels} kernels{f' up to {limit}' if limit else ''}"
