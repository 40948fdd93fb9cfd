"""Attacks by the name of their method, with what tests share of their settings."""

from __future__ import annotations

from typing import Any

from alp_repro.attacks import Attack, attack_class


def attack_of(method: str = "pgd", **settings: Any) -> Attack:
    """The attack with these settings; a step size is for those alone that have one."""
    step = settings.pop("eps_iter", None)
    step_name = {"pgd": "eps_iter", "turns": "eps_iter", "spsa": "learning_rate"}.get(method)
    if step is not None and step_name is not None:
        settings[step_name] = step
    return attack_class(method)(**settings)
