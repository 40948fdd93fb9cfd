"""What is foretold of a table: of what is still to do, not of what stands on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from alp_repro import evaluation
from alp_repro.attacks import PGD
from experiments.flags import settings
from experiments.running import estimates, rows

IMAGES = 10


@pytest.fixture
def job(tmp_path: Path) -> rows.Job:
    """A row of Table 1 of which nothing is on disk."""
    values = flags.FlagValues()
    settings.define_table_flags(values)
    values(["table", "--table=1", "--scale=smoke", f"--runs_dir={tmp_path / 'runs'}"])
    settings.fill_in_table(values)
    made = rows.make_job(values, "plain")
    made.values.num_images = IMAGES
    return made


def test_a_column_with_more_restarts_goes_on_where_the_one_with_fewer_ended(job: rows.Job) -> None:
    attack = job.columns[0].attack
    more = [
        dataclasses.replace(column, attack=dataclasses.replace(attack, restarts=restarts))
        for restarts, column in zip((1, 7, 3), [job.columns[0]] * 3, strict=True)
    ]
    assert estimates.attacks_of(more) == [dataclasses.replace(attack, restarts=7)]


def test_what_stands_on_disk_is_not_foretold_again(
    job: rows.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = PGD(eps=0.3, eps_iter=0.1, nb_iter=2, restarts=4)
    assert estimates.share_left(job, attack) == 1.0
    zeros = np.zeros(IMAGES, np.int32)
    record = evaluation.record.new_record(
        labels=zeros, indices=zeros, clean_predictions=zeros, settings={}
    )
    # Half of the images are broken, the others have seen one restart of four.
    record.first_break[:5] = 0
    record.next_restart[:] = 1
    monkeypatch.setattr(evaluation, "find_record", lambda run, **wanted: record)
    assert estimates.share_left(job, attack) == 5 * 3 / (4 * IMAGES)
    record.first_break[:] = 0
    assert estimates.share_left(job, attack) == 0.0


def test_the_time_left_follows_all_results_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small last batches of one attack are slow: their speed is not that of the next attacks."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = estimates.VerificationTimeLeft(12_000)
    assert clock.left() == ""
    clock.report(evaluation.Progress(100, 100, 0, 1, gradients_per_second=100.0, seconds_left=1.0))
    assert clock.left() == "about 2.0 minutes left"
    now = 60.0
    clock.ended(6_000)
    clock.report(evaluation.Progress(3, 100, 5, 7, gradients_per_second=0.1, seconds_left=9e5))
    assert clock.left() == "about 60 seconds left"
    now = 90.0
    assert clock.left() == "about 30 seconds left"
