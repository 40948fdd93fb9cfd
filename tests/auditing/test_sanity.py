"""The sanity checks of Carlini et al. 2019: what is raised, and that the checks are attacks too."""

from __future__ import annotations

import numpy as np
import pytest

import alp_repro
from alp_repro.attacks import Phase
from alp_repro.auditing import audit_phases, indicators, plan, specs
from tests.auditing import zoo


def test_a_step_and_chance_are_no_stronger_than_many_steps() -> None:
    assert indicators.one_step_stronger(12, 10, 100).raised
    assert not indicators.one_step_stronger(11, 10, 100).raised
    assert not indicators.one_step_stronger(3, 10, 100).raised
    assert indicators.noise_stronger(2, 5, 100).raised
    assert not indicators.noise_stronger(1, 5, 100).raised


def test_a_larger_ball_leaves_fewer_and_the_largest_none() -> None:
    sizes = [0.1, 0.2, 0.4, 1.0]
    assert not indicators.eps_grid(sizes, [40, 20, 3, 0], 50).raised
    assert indicators.eps_grid(sizes, [40, 20, 8, 6], 50).raised
    assert not indicators.eps_grid(sizes, [40, 20, 7, 5], 50).raised
    assert indicators.eps_grid(sizes, [20, 26, 3, 0], 50).raised
    assert not indicators.eps_grid(sizes, [20, 22, 3, 0], 50).raised
    assert "20 at 25.5" in indicators.eps_grid(sizes, [20, 24, 3, 0], 50).saw


def test_of_two_results_one_is_wrong() -> None:
    assert indicators.contradiction([("half the ball", 6, 100)], 0).raised
    assert not indicators.contradiction([("half the ball", 5, 100)], 0).raised
    assert not indicators.contradiction([("half the ball", -30, 100)], 0).raised
    assert not indicators.contradiction([("half the ball", 1, 10)], 0).raised
    assert indicators.contradiction([("half the ball", 0, 100)], 6).raised


@pytest.mark.parametrize("classes", [2, 4])
def test_the_checks_are_in_every_plan_and_need_no_more_than_there_is(classes: int) -> None:
    phases = plan.with_comparisons(audit_phases(zoo.PLAIN, classes=classes))
    assert [one.name for one in phases][:4] == ["default", "noise", "one_step", "half"]
    assert all(one.attack.gradients > 0 and one.attack.eps <= zoo.EPS for one in phases)
    black_box = plan.with_comparisons([Phase(zoo.square(zoo.EPS, 50), "all", name="default")])
    assert [one.name for one in black_box] == ["default", "noise"]


@pytest.mark.slow
def test_what_a_check_breaks_counts() -> None:
    """An evaluation that does nothing; chance and one step do more, which is reported."""
    idle = zoo.pgd(0.4, eps_iter=1e-6, nb_iter=1, random_start=False)
    phases = plan.with_comparisons([Phase(idle, "all", name="default")])
    found = alp_repro.audit(
        zoo.linear(),
        zoo.IMAGES,
        zoo.LABELS,
        0.4,
        attack=idle,
        phases=phases,
        closer_look=False,
        minutes=600,
    )
    raised = {one.key for one in found.raised}
    assert {"one_step_stronger", "noise_stronger", "eps_grid"} <= raised
    by_check = np.isin(found.broken_by, [1, 2])
    assert by_check.any() and found.worst_accuracy < found.default_accuracy


def test_every_check_is_reported_where_nothing_was_attacked() -> None:
    found = alp_repro.audit(
        zoo.linear(), zoo.IMAGES, (zoo.LABELS + 1) % zoo.CLASSES, zoo.EPS, minutes=1
    )
    states = {one.key: one.state for one in found.indicators}
    for spec in (specs.ONE_STEP, specs.NOISE, specs.EPS_GRID, specs.CONTRADICTION):
        assert states[spec.key] == "not judged"
