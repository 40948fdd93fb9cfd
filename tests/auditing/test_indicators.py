"""Each way to fool an evaluation raises its own flag, and an honest model raises none."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import alp_repro
from alp_repro.auditing import Audit, audit
from alp_repro.classifiers import pixel_range
from tests.auditing import fixtures

IMAGES, LABELS = fixtures.images_and_labels()


def audited(model, **options) -> Audit:  # type: ignore[no-untyped-def]
    options = {"eps": fixtures.EPS, "minutes": 5, **options}
    return audit(model, IMAGES, LABELS, **options)


def raised(found: Audit) -> set[str]:
    return {one.key for one in found.raised}


@pytest.fixture(scope="module")
def honest_audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audited(fixtures.honest(), folder=tmp_path_factory.mktemp("honest"))


def test_an_honest_model_raises_nothing(honest_audit: Audit) -> None:
    assert raised(honest_audit) == set()
    assert "Nothing raised; the number is an upper bound all the same." in honest_audit.verdict
    assert all(one.state == "clear" for one in honest_audit.indicators)
