"""What is told of the machine comes from Linux' own list, and its absence is no error."""

from __future__ import annotations

import os
import platform

import pytest

from alp_repro.system import machine

AMX = ["processor : 0", "model name\t: Intel(R) Xeon(R) 8481C", "flags\t\t: fpu avx2 amx_bf16", ""]


def test_the_processor_is_told_with_its_best_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    machine.instructions.cache_clear()
    monkeypatch.setattr(machine, "cpuinfo", lambda: AMX)
    assert machine.instructions() == {"fpu", "avx2", "amx_bf16"}
    assert machine.describe() == (
        f"{platform.machine()}, {os.cpu_count()} cores, Intel(R) Xeon(R) 8481C (amx_bf16)"
    )
    machine.instructions.cache_clear()


def test_without_a_list_the_platform_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    machine.instructions.cache_clear()
    monkeypatch.setattr(machine, "cpuinfo", list)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert machine.processor() == "unknown processor"
    machine.instructions.cache_clear()
