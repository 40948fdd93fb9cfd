"""The machine that this runs on: its processor, instructions and network."""

from __future__ import annotations

import functools
import os
import platform
import socket
import threading
from pathlib import Path

from alp_repro.errors import InputError

# Instructions that change rounding or speed, by their names in /proc/cpuinfo, strongest first.
_NAMED = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def describe() -> str:
    """Describe architecture, cores and processor: "x86_64, 2 cores, AMD EPYC (avx512_bf16)"."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {processor()}"


def processor() -> str:
    """Return the processor's name and, in brackets, its strongest known instructions."""
    names = [line.partition(":")[2].strip() for line in cpuinfo() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or "unknown processor"
    found = instructions()
    best = next((name for name in _NAMED if name in found), None)
    return f"{name} ({best})" if best else name


@functools.cache
def instructions() -> frozenset[str]:
    """Return the processor's instruction sets by Linux' names; empty if they are unknown."""
    flags = [line.partition(":")[2] for line in cpuinfo() if line.startswith("flags")]
    return frozenset(flags[0].split()) if flags else frozenset()


def resolve(host: str, *, seconds: float) -> None:
    """Check that a host's name has an address, with a time limit, which the system lacks.

    Raises:
      InputError: no address was found within `seconds`.
    """
    problems: list[str] = []

    def ask() -> None:
        try:
            socket.getaddrinfo(host, None)
            problems.append("")
        except (OSError, UnicodeError) as error:
            problems.append(getattr(error, "strerror", None) or str(error))

    # In a thread, since signals are not handled during the lookup, which may take minutes.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    problem = problems[0] if problems else f"no answer within {seconds:g} s"
    if problem:
        raise InputError(f"host {host}: no address found ({problem})")


def cpuinfo() -> list[str]:
    """Return the lines of Linux' /proc/cpuinfo; none if there is no such file."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
