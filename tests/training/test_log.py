"""training.csv: whole at any moment, one line an epoch, going on from what is there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from alp_repro.errors import InputError
from alp_repro.training.callbacks import TrainingLog


def test_a_line_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    log = TrainingLog(path, done=0)
    log.on_epoch_end(0, {"loss": 2.5, "accuracy": 0.1})
    log.on_epoch_end(1, {"loss": 2.0, "accuracy": 0.25})
    assert path.read_text() == "epoch,accuracy,loss\n0,0.1,2.5\n1,0.25,2.0\n"


def test_a_log_goes_on_from_one_of_keras(tmp_path: Path) -> None:
    """Columns of validation, an epoch that was begun twice, half a line, an epoch begun again."""
    path = tmp_path / "training.csv"
    path.write_text(
        "epoch,accuracy,loss,val_accuracy,val_loss\n"
        "0,0.1,2.5,NA,NA\n"
        "1,0.2,2.4,NA,NA\n"
        "1,0.25,2.0,NA,NA\n"
        "2,0.3\n"
        "2,0.4,1.0,NA,NA\n"
    )
    log = TrainingLog(path, done=2)
    log.on_epoch_end(2, {"loss": 1.5, "accuracy": 0.5, "test_accuracy": 0.75})
    assert path.read_text() == (
        "epoch,accuracy,loss,test_accuracy\n0,0.1,2.5,nan\n1,0.25,2.0,nan\n2,0.5,1.5,0.75\n"
    )


def test_a_full_disk_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "training.csv"
    log = TrainingLog(path, done=0)
    log.on_epoch_end(0, {"loss": 2.5})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left"):
            log.on_epoch_end(1, {"loss": 2.0})
    assert path.read_text() == "epoch,loss\n0,2.5\n"


def test_a_log_of_a_training_that_left_no_state_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    path.write_text("epoch,loss\n0,9.0\n1,9.0\n")
    TrainingLog(path, done=0).on_epoch_end(0, {"loss": 2.5})
    assert path.read_text() == "epoch,loss\n0,2.5\n"


def test_another_file_in_its_place_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    for content in (b"", b"name,value\na,1\n", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a valid training log") as caught:
            TrainingLog(path, done=1)
        assert "\n" not in str(caught.value)
