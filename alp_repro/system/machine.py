"""The machine that this runs on, as far as results and choices depend on it."""

from __future__ import annotations

import functools
import os
import platform
import socket
import threading
from pathlib import Path

from alp_repro.errors import InputError

# Instructions whose kernels round or run otherwise; of Linux' /proc/cpuinfo, strongest first.
_TOLD = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def describe() -> str:
    """Architecture, cores and processor, as in "x86_64, 2 cores, AMD EPYC (avx512_bf16)"."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {processor()}"


def processor() -> str:
    """The processor's name and, in brackets, the strongest instructions that we know of."""
    names = [line.partition(":")[2].strip() for line in cpuinfo() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or "unknown processor"
    found = instructions()
    best = next((told for told in _TOLD if told in found), None)
    return f"{name} ({best})" if best else name


@functools.cache
def instructions() -> frozenset[str]:
    """The instruction sets of the processor in Linux' names; empty where there is no telling."""
    flags = [line.partition(":")[2] for line in cpuinfo() if line.startswith("flags")]
    return frozenset(flags[0].split()) if flags else frozenset()


def resolve(host: str, *, seconds: float) -> None:
    """Check that a host's name has an address, in a time that the system alone does not keep.

    Raises:
      InputError: none was found within so many seconds.
    """
    told: list[str] = []

    def ask() -> None:
        try:
            socket.getaddrinfo(host, None)
            told.append("")
        except (OSError, UnicodeError) as error:
            told.append(getattr(error, "strerror", None) or str(error))

    # In a thread: no signal is heard while the system looks, and that may take minutes.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    problem = told[0] if told else f"no answer within {seconds:g} s"
    if problem:
        raise InputError(f"host {host}: no address is found ({problem})")


def cpuinfo() -> list[str]:
    """Return the lines of Linux' /proc/cpuinfo; none where there is no such file."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
