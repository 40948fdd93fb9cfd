"""What is refused before a training begins."""

from __future__ import annotations

import pytest

from alp_repro.errors import InputError
from experiments.running.training_run import check_revision


def test_a_published_model_is_not_trained_from_code_that_no_revision_has() -> None:
    check_revision("33c69c7aaaaa")
    with pytest.raises(InputError, match=r"33c69c7aaaaa\+changes.*commit"):
        check_revision("33c69c7aaaaa+changes")
