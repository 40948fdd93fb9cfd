"""What the machine, Keras' settings and installed packages may be like."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alp_repro import runs
from alp_repro.errors import InputError
from alp_repro.system import machine

SETTINGS = {"floatx": "float16", "image_data_format": "channels_first", "backend": "torch"}


def imported(program: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_is_refused_as_the_library_is_imported(backend: str) -> None:
    ended = imported(["-c", "import alp_repro"], KERAS_BACKEND=backend)
    last = ended.stderr.splitlines()[-1]
    assert "InputError" in last and "KERAS_BACKEND" in last and backend in last, last


def test_a_binary_tells_it_in_one_line() -> None:
    ended = imported(["-m", "experiments.audit", "--model=m", "--data=d"], KERAS_BACKEND="jax")
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert "KERAS_BACKEND" in line and "expected tensorflow" in line


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_keras_that_do_not_fit_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alp_repro.system import environment

    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    environment.check_keras()
    file = tmp_path / "keras.json"
    file.write_text(json.dumps({name: SETTINGS[name]}))
    with pytest.raises(InputError, match=rf"keras.json .*{SETTINGS[name]}"):
        environment.check_keras()
    file.write_text("[1]")
    with pytest.raises(InputError, match=r"keras.json"):
        environment.check_keras()
    file.write_text(json.dumps({name: environment.NEEDED[name], "epsilon": 1e-7}))
    environment.check_keras()


def test_a_package_under_another_distributions_name_has_a_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`tensorflow-cpu` and nightlies bring the module without a distribution of that name."""
    true_version, wanted = importlib.metadata.version, runs.provenance()["versions"]

    def version(name: str) -> str:
        if name in ("tensorflow", "keras"):
            raise importlib.metadata.PackageNotFoundError(name)
        return true_version(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert runs.provenance()["versions"] == wanted


def test_a_host_that_does_not_resolve_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine.resolve("localhost", seconds=10)
    with pytest.raises(InputError, match=r"no address"):
        machine.resolve("x" * 300, seconds=10)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(30))
    started = time.monotonic()
    with pytest.raises(InputError, match=r"nowhere.*no answer"):
        machine.resolve("nowhere.invalid", seconds=0.2)
    assert time.monotonic() - started < 10
