"""What --strategy makes of TF_CONFIG."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tensorflow as tf
from absl import flags

from alp_repro.errors import InputError
from experiments.running import devices


def choose(strategy: str) -> devices.Devices:
    values = flags.FlagValues()
    devices.define_flags(values, several_machines=True)
    values(["binary", "--device=cpu", f"--strategy={strategy}"])
    return devices.choose(values)


def cluster(*addresses: Any, kind: str = "worker", index: Any = 0) -> str:
    task = {"type": kind, "index": index}
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": task})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{not json", "Expecting property name"),
        ("[]", "TF_CONFIG='[]'"),
        ("[" * 100_000, "TF_CONFIG="),
        ('{"cluster": 3, "task": {"type": "worker", "index": 0}}', "not subscriptable"),
        (cluster("host:port"), "'host:port': expected host:port"),
        (cluster("host:99999"), "expected host:port"),
        (cluster("host"), "expected host:port"),
        (cluster(17), "expected host:port"),
        (cluster("a:1", "a:1"), "given twice"),
        (cluster("a.invalid:1", "localhost:1"), "host a.invalid: no address"),
        (cluster("a:1", index=1), "task index 1"),
        (cluster("a:1", index="x"), "TF_CONFIG="),
        (cluster("a:1", kind="ps"), "task type 'ps'"),
    ],
)
def test_a_cluster_that_is_none_is_one_line(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError) as caught:
        choose("multi_worker")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["garbage", cluster("a:1", "b:1")])
def test_one_machine_does_not_read_it(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mirrored(names: list[str]) -> tf.distribute.Strategy:
        # A second one in a process would mistake the first one's collective operations.
        assert "TF_CONFIG" not in devices.os.environ
        return tf.distribute.get_strategy()

    monkeypatch.setattr(tf.distribute, "MirroredStrategy", mirrored)
    monkeypatch.setenv("TF_CONFIG", text)
    assert choose("mirrored").strategy is not None
    assert "TF_CONFIG is ignored" in capsys.readouterr().err
