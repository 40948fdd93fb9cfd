"""The audit reports the faults of the zoo's models and evaluations, and none of the sound ones.

All animals together take minutes: those that stand for a kind are run every time.
"""

from __future__ import annotations

import functools

import pytest

import alp_repro
from alp_repro.attacks import Phase
from alp_repro.auditing import Audit, plan
from tests.auditing import zoo
from tests.marks import slow_unless

QUICK = {"an argmax", "a loss for more classes"}  # test_indicators.py has an honest model


@functools.cache
def audited(name: str) -> Audit:
    """With an attack of large steps and a black box beside the evaluation under audit."""
    one = zoo.animal(name)
    eps = one.attack.eps
    restarts = zoo.changed(one.attack, restarts=5)
    phases = plan.with_comparisons(
        [
            Phase(one.attack, "all", name="default"),
            Phase(zoo.pgd(eps, eps_iter=0.65 * eps), "all", name="steps"),
            Phase(restarts, "all", name="restarts"),
            Phase(zoo.square(eps, 300), name="square"),
        ]
    )
    return alp_repro.audit(
        one.make(),
        zoo.IMAGES,
        one.labels,
        eps,
        attack=one.attack,
        phases=phases,
        closer_look=False,
        minutes=600,
    )


@pytest.mark.parametrize("name", slow_unless(QUICK, zoo.SOUND))
def test_nothing_is_raised_on_a_sound_one(name: str) -> None:
    found = audited(name)
    assert found.clean_accuracy >= 0.9
    assert [(one.key, one.saw) for one in found.raised] == []


@pytest.mark.parametrize("name", slow_unless(QUICK, zoo.FAULTY))
def test_a_fault_is_reported(name: str) -> None:
    raised = {one.key for one in audited(name).raised}
    assert raised & zoo.animal(name).flags, raised


def test_the_zoo_is_large_enough() -> None:
    assert len(zoo.FAULTY) >= 12 and len(zoo.SOUND) >= 6
    assert all(one.flags for one in zoo.FAULTY.values())
