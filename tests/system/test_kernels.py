"""TensorFlow's kernels are chosen before it is imported, and the user's own setting wins."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from alp_repro.system import kernels, machine

X86 = platform.machine() in ("x86_64", "AMD64")
SETTING = "TF_ENABLE_ONEDNN_OPTS"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != SETTING}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.skipif(not X86, reason="oneDNN's kernels are for x86 processors")
@pytest.mark.parametrize("way_in", ["alp_repro", "experiments"])
def test_importing_us_turns_them_on(way_in: str) -> None:
    assert run(f"import os, {way_in}; print(os.environ['{SETTING}'])").stdout.split() == ["1"]


@pytest.mark.parametrize("way_in", ["alp_repro", "experiments"])
def test_the_users_setting_stays(way_in: str) -> None:
    code = f"import os, {way_in}; print(os.environ['{SETTING}'])"
    assert run(code, **{SETTING: "0"}).stdout.split() == ["0"]


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Instructions of a processor that the test may add to, without settings of the user's."""
    found: set[str] = {"avx2", "fma"}
    monkeypatch.setattr(machine, "instructions", lambda: found)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delenv(SETTING, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    kernels.choose.cache_clear()
    return found


def test_who_imported_tensorflow_first_is_told_what_is_lost(
    processor: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert "tensorflow" in sys.modules
    kernels.choose()
    assert SETTING in caplog.text and len(caplog.records) == 1
    assert SETTING not in os.environ  # it would say what is not so


def test_nothing_is_said_where_nothing_is_lost(
    processor: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    processor.add("avx512_vnni")
    kernels.choose()
    assert not caplog.records


@pytest.mark.parametrize(
    ("instructions", "onednn", "limit", "expected"),
    [
        (("avx512_vnni", "avx512_bf16"), None, None, True),
        (("avx512_vnni", "amx_bf16"), "1", None, True),
        (("avx512_vnni",), None, None, False),
        (("avx512_vnni", "avx512_bf16"), "0", None, False),
        (("avx512_vnni", "avx512_bf16"), "1", "AVX2", False),
        (("avx512_vnni", "avx512_bf16"), "1", "avx512_core", False),
        (("avx512_vnni", "avx512_bf16"), "1", "AVX512_CORE_BF16", True),
    ],
)
def test_bfloat16_is_for_kernels_that_multiply_it(
    processor: set[str],
    monkeypatch: pytest.MonkeyPatch,
    instructions: tuple[str, ...],
    onednn: str | None,
    limit: str | None,
    expected: bool,
) -> None:
    processor.update(instructions)
    for name, value in ((SETTING, onednn), ("ONEDNN_MAX_CPU_ISA", limit)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert kernels.multiply_bfloat16() is expected


def test_the_description_names_the_kernels_and_the_limit(
    processor: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernels.describe() == "Eigen kernels"
    monkeypatch.setenv(SETTING, "1")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert kernels.describe() == "oneDNN kernels up to AVX2"
