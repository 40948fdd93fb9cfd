"""How many rows at a time, with how many cores each."""

from __future__ import annotations

import pytest
from absl import flags

from alp_repro.errors import InputError
from experiments.running import devices, shares
from experiments.running.shares import RowParallelism, row_parallelism


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
        ([], 8, RowParallelism(4, 1)),
        ([], 2, RowParallelism(2, 2)),
        ([], 1, RowParallelism(1, None)),
        (["--jobs=3"], 8, RowParallelism(3, 1)),
        (["--jobs=8"], 8, RowParallelism(8, 1)),
        (["--jobs=1"], 8, RowParallelism(1, None)),
        (["--jobs=1", "--threads=1"], 8, RowParallelism(1, 1)),
        (["--jobs=2", "--threads=1"], 8, RowParallelism(2, 1)),
        (["--device=gpu"], 8, RowParallelism(1, None)),
        (["--device=gpu", "--jobs=2"], 8, RowParallelism(2, 2)),
        (["--strategy=mirrored"], 8, RowParallelism(1, None)),
    ],
)
def test_rows_share_the_cores(arguments: list[str], rows: int, share: RowParallelism) -> None:
    assert row_parallelism(values(*arguments), rows) == share


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "", "1.5", "9"])
def test_a_number_of_jobs_that_cannot_be_is_told(jobs: str) -> None:
    with pytest.raises(InputError, match=f"--jobs={jobs}: .*auto, .* 1 to 8"):
        row_parallelism(values(f"--jobs={jobs}"), 8)


def test_rows_beside_each_other_have_no_replicas() -> None:
    with pytest.raises(InputError, match=r"--strategy=.*--jobs=1"):
        row_parallelism(values("--jobs=2", "--strategy=mirrored"), 8)
