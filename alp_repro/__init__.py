"""Logit pairing and what strong attacks leave of it: training, attacks with restarts, evaluation.

import alp_repro

attack = alp_repro.Attack(eps=76.5 / 255, eps_iter=50 / 255, nb_iter=200, restarts=100)
record = alp_repro.evaluate(model, images, labels, attack=attack)
print(record.accuracy_at(1), record.accuracy_at(100), record.interval_at(100))
"""

from alp_repro.attacks import Attack, strong_attack
from alp_repro.auditing import Audit, audit
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, evaluate
from alp_repro.training import Recipe, train

__all__ = [
    "Attack",
    "AttackRecord",
    "Audit",
    "InputError",
    "Recipe",
    "audit",
    "evaluate",
    "strong_attack",
    "train",
]
