"""Logit pairing and what strong attacks leave of it: training, attacks with restarts, evaluation.

import alp_repro

data = alp_repro.load_evaluation_set("mnist", num_images=200)
model = alp_repro.load_model("model.keras")
attack = alp_repro.PGD(eps=76.5 / 255, eps_iter=50 / 255, nb_iter=200, restarts=100)
record = alp_repro.evaluate(model, data.unit_scale, data.labels, attack=attack)
print(record.accuracy_at(1), record.accuracy_at(100), record.interval_at(100))
"""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export
from alp_repro.system import environment as environment  # sets TensorFlow and Keras up
from alp_repro.versions import VERSION

if TYPE_CHECKING:
    from alp_repro.attacks import (
        APGD,
        FAB,
        PGD,
        SPSA,
        Attack,
        BasinHopping,
        Ensemble,
        Phase,
        Square,
        autoattack,
        strong_attack,
    )
    from alp_repro.auditing import Audit, audit
    from alp_repro.data.load import load_evaluation_set
    from alp_repro.errors import InputError
    from alp_repro.evaluation import AttackRecord, RobustAccuracy, evaluate, load_record
    from alp_repro.evaluation.published import load_published
    from alp_repro.runs import load_model
    from alp_repro.training import LogitPairing, Recipe, train

__version__ = VERSION

__all__ = [
    "APGD",
    "FAB",
    "PGD",
    "SPSA",
    "Attack",
    "AttackRecord",
    "Audit",
    "BasinHopping",
    "Ensemble",
    "InputError",
    "LogitPairing",
    "Phase",
    "Recipe",
    "RobustAccuracy",
    "Square",
    "audit",
    "autoattack",
    "evaluate",
    "load_evaluation_set",
    "load_model",
    "load_published",
    "load_record",
    "strong_attack",
    "train",
]

export(
    __name__,
    {
        "alp_repro.attacks": (
            "APGD",
            "FAB",
            "PGD",
            "SPSA",
            "Attack",
            "BasinHopping",
            "Ensemble",
            "Phase",
            "Square",
            "autoattack",
            "strong_attack",
        ),
        "alp_repro.auditing": (
            "Audit",
            "audit",
        ),
        "alp_repro.data.load": ("load_evaluation_set",),
        "alp_repro.errors": ("InputError",),
        "alp_repro.evaluation": (
            "AttackRecord",
            "RobustAccuracy",
            "evaluate",
            "load_record",
        ),
        "alp_repro.evaluation.published": ("load_published",),
        "alp_repro.runs": ("load_model",),
        "alp_repro.training": (
            "LogitPairing",
            "Recipe",
            "train",
        ),
    },
)
