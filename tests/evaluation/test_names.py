"""File names of results: those of today stay, and tell what departs from the paper's PGD."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro import files
from alp_repro.attacks import PGD
from alp_repro.errors import InputError
from alp_repro.evaluation import attack_file_name, evaluate
from alp_repro.evaluation.record_file import load_record
from alp_repro.evaluation.store import attack_settings

STORED = sorted((Path(__file__).parents[1] / "stored").rglob("attacks/*.npz"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_result_has_the_name_that_is_looked_for(path: Path) -> None:
    assert attack_file_name(load_record(path).settings) == path.name


def test_a_complete_result_is_read_without_a_lock(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attack = PGD(eps=0.1, eps_iter=0.05, nb_iter=1)
    arguments: dict[str, Any] = {"batch_size": 40, "folder": tmp_path}
    first = evaluate(model, images, labels, attack=attack, **arguments)

    def refused(_: Path) -> None:
        raise InputError("cannot write to a read-only folder")

    monkeypatch.setattr(files, "exclusive", refused)
    again = evaluate(model, images, labels, attack=attack, **arguments)
    assert again.accuracy_at(1) == first.accuracy_at(1)
    with pytest.raises(InputError, match="read-only"):
        more = dataclasses.replace(attack, restarts=2)
        evaluate(model, images, labels, attack=more, **arguments)


def test_a_setting_of_later_is_in_the_name_where_it_departs() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(PGD):
        sharpness: float = 0.0

    def name(**changes: Any) -> str:
        attack = Later(eps=0.3, eps_iter=0.01, nb_iter=40, **changes)
        return attack_file_name({"attack": attack_settings(attack), "num_images": 9, "seed": 0})

    assert "sharpness-2_" in name(sharpness=2.0) and "sharpness" not in name()
    assert "_margin_sharpness-0.5_images9_" in name(loss="margin", sharpness=0.5)
    assert name(target="each", dtype="bfloat16").startswith(
        "pgd_eps76.5_step2.55_n40_target-each_bfloat16_images9_"
    )
    assert name(momentum=0.5) != name(momentum=0.75)  # told by the digest
