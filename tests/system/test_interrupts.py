import importlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from alp_repro.system import interrupts

MODULE = """
import os, signal, time
os.kill(os.getpid(), signal.{name})
for _ in range(30):
    time.sleep(0.01)
done = True
"""


@pytest.fixture(params=["SIGINT", "SIGTERM"])
def name(request: pytest.FixtureRequest):
    number = getattr(signal, request.param)
    before = signal.signal(number, interrupts.raise_interrupt)
    yield request.param
    signal.signal(number, before)


def test_an_interrupt_waits_until_an_import_is_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"slow_{name}.py").write_text(MODULE.format(name=name))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module(f"slow_{name}")
        time.sleep(5)
    assert sys.modules.pop(f"slow_{name}").done


def test_an_interrupt_outside_imports_comes_at_once(name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(5)
        pytest.fail("it did not come")
    if name == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)  # a second one is ignored
