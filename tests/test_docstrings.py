"""The examples in the public docstrings run, and say what happens."""

from __future__ import annotations

import doctest
from pathlib import Path

import keras
import numpy as np
import pytest

import alp_repro
from tests.marks import slow_unless

FORM = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


QUICK = set(alp_repro.__all__) - {"Audit", "audit"}  # these two make whole audits


@pytest.mark.parametrize("name", slow_unless(QUICK, alp_repro.__all__))
def test_a_public_name_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    known = {"alp_repro": alp_repro, "keras": keras, "np": np}
    finder = doctest.DocTestFinder(recurse=False)
    (found,) = finder.find(getattr(alp_repro, name), name, globs=known)
    assert found.examples
    told: list[str] = []
    result = doctest.DocTestRunner(optionflags=FORM).run(found, out=told.append)
    assert not result.failed, "".join(told)
