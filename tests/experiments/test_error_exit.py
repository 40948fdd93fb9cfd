"""Whatever goes wrong ends in one line and an exit code of its own, imports included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from alp_repro.errors import InputError
from experiments.console import app, error_exit
from experiments.flags import definitions

ROOT = Path(__file__).resolve().parents[2]


def raising(error: BaseException) -> Callable[[list[str]], None]:
    def main(_: list[str]) -> None:
        raise error

    return main


@pytest.fixture(autouse=True)
def handlers_are_put_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["binary"])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("no such\nrow"), 2, "error: no such row"),
        (ZeroDivisionError("by zero"), 70, "error: ZeroDivisionError: by zero (unexpected error;"),
        (MemoryError(), 70, "error: MemoryError (unexpected error;"),
        (OSError(28, "No space left on device", "/x/y"), 2, "/x/y: No space left on device: free"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied: choose"),
        (OSError(5, "Input/output error"), 70, "Input/output error (unexpected error;"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM\nwhen"), 70, "ExhaustedError: OOM when"),
        (KeyboardInterrupt(), 130, "interrupted: progress is saved"),
    ],
)
def test_an_error_is_one_line(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app.run(raising(error))
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("code", [0, None, 3, "bye"])
def test_an_exit_of_foreign_code_is_an_error(
    code: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app.run(raising(SystemExit(code)))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sys.exit" in line


def test_what_main_returns_is_the_exit_code() -> None:
    with pytest.raises(SystemExit) as ended:
        app.run(lambda _: 3)
    assert ended.value.code == 3


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_no_flag_is_nan_or_infinite(number: str) -> None:
    with pytest.raises(InputError, match=r"--learning_rate=.*finite"):
        definitions.parse([f"--learning_rate={number}"])


def test_the_flag_traceback_shows_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["binary", "--traceback"])
    with pytest.raises(SystemExit):
        app.run(raising(ZeroDivisionError("by zero")))
    assert "in main" in capsys.readouterr().err


def test_a_long_line_keeps_its_beginning_and_its_end() -> None:
    line = error_exit.one_line(f"what was wrong {'x ' * 700} what would be right")
    assert len(line) < 420
    assert line.startswith("what was wrong") and line.endswith("what would be right")


def test_a_reader_that_has_gone_ends_it_silently(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `… | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as ended:
            app.run(lambda _: print("a line"))
    assert ended.value.code == 141
    assert capsys.readouterr().err == ""


def test_a_full_disk_under_the_output_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as ended:
            app.run(lambda _: print("a line"))
    assert ended.value.code == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_a_terminal_cannot_print_is_replaced(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with out.open("w", encoding=encoding) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as ended:
            app.run(lambda _: print("ε and λ: 5"))
    assert not ended.value.code
    assert out.read_text(encoding=encoding) == "? and ?: 5\n"


STUBS = {
    "interrupted": ("import os, signal\nos.kill(os.getpid(), signal.SIGINT)", 130, "interrupted"),
    "terminated": ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", 130, "interrupted"),
    "broken": ("raise ImportError('libcudart is missing')", 70, "error: ImportError: libcudart"),
}


@pytest.mark.parametrize("stub", STUBS)
def test_imports_are_guarded(stub: str, tmp_path: Path) -> None:
    """A stand-in for TensorFlow does while it is imported what then goes wrong."""
    code, expected, words = STUBS[stub]
    (tmp_path / "tensorflow.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == expected, done.stderr
    (line,) = done.stderr.splitlines()
    assert words in line
