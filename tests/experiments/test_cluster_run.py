"""--ray: what is refused before there is a cluster."""

from __future__ import annotations

import sys

import pytest
from absl import flags

from alp_repro import tasks
from alp_repro.errors import InputError
from experiments.running import cluster_run, devices, shares


def flags_of(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    for module in (devices, shares, cluster_run):
        module.define_flags(values)
    values(["table", *arguments])
    return values


def test_without_ray_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cluster", "workers"):
        monkeypatch.delitem(sys.modules, f"{tasks.__name__}.{name}", raising=False)
        monkeypatch.delattr(tasks, name, raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    with (
        pytest.raises(InputError, match=r"Ray .*: .*pip install '\.\[cluster\]'$"),
        cluster_run.computing(flags_of("--ray=local")),
    ):
        pass


@pytest.mark.parametrize("flag", ["--jobs=2", "--threads=1", "--strategy=mirrored", "--device=cpu"])
def test_ray_alone_places_the_work(flag: str) -> None:
    with (
        pytest.raises(InputError, match=f"--ray=local {flag}: .*--cpus_per_task"),
        cluster_run.computing(flags_of("--ray=local", flag)),
    ):
        pass


def test_event_files_are_not_promised_of_trainings_elsewhere() -> None:
    values = flags_of()
    flags.DEFINE_boolean("tensorboard", False, "", flag_values=values)
    values(["train", "--ray=local", "--tensorboard"])
    with (
        pytest.raises(InputError, match=r"--ray=local --tensorboard: .*no event files"),
        cluster_run.computing(values),
    ):
        pass
