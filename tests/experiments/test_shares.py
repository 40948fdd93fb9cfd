"""How many rows at a time, with how many cores each."""

from __future__ import annotations

import pytest
from absl import flags

from alp_repro.errors import InputError
from experiments.running import devices, shares
from experiments.running.shares import Share, share_of


def values(*arguments: str) -> flags.FlagValues:
    found = flags.FlagValues()
    devices.define_flags(found)
    shares.define_flags(found)
    found(["table", *arguments])
    return found


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "cores", lambda: 4)
    monkeypatch.setattr(shares, "uses_gpu", lambda flags: flags.device == "gpu")


@pytest.mark.parametrize(
    ("arguments", "rows", "share"),
    [
        ([], 8, Share(4, 1)),
        ([], 2, Share(2, 2)),
        ([], 1, Share(1, None)),
        (["--jobs=3"], 8, Share(3, 1)),
        (["--jobs=8"], 8, Share(8, 1)),
        (["--jobs=1"], 8, Share(1, None)),
        (["--jobs=1", "--threads=1"], 8, Share(1, 1)),
        (["--jobs=2", "--threads=1"], 8, Share(2, 1)),
        (["--device=gpu"], 8, Share(1, None)),
        (["--device=gpu", "--jobs=2"], 8, Share(2, 2)),
        (["--strategy=mirrored"], 8, Share(1, None)),
    ],
)
def test_rows_share_the_cores(arguments: list[str], rows: int, share: Share) -> None:
    assert share_of(values(*arguments), rows) == share


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "", "1.5", "9"])
def test_a_number_of_jobs_that_cannot_be_is_told(jobs: str) -> None:
    with pytest.raises(InputError, match=f"--jobs={jobs}: auto, or a number of 1 to 8"):
        share_of(values(f"--jobs={jobs}"), 8)


def test_rows_beside_each_other_have_no_replicas() -> None:
    with pytest.raises(InputError, match="one row at a time can use several devices"):
        share_of(values("--jobs=2", "--strategy=mirrored"), 8)
