"""Evaluation: attacks on a model and images, adversarial accuracies, optionally stored on disk."""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
    from alp_repro.evaluation.evaluate import evaluate
    from alp_repro.evaluation.intervals import wilson_interval
    from alp_repro.evaluation.record import AttackRecord
    from alp_repro.evaluation.record_file import load_record, save_record
    from alp_repro.evaluation.restarts import Progress
    from alp_repro.evaluation.robust_accuracy import RobustAccuracy
    from alp_repro.evaluation.store import attack_file_name, find_record

__all__ = [
    "AttackRecord",
    "Progress",
    "RobustAccuracy",
    "attack_file_name",
    "evaluate",
    "find_record",
    "load_record",
    "save_record",
    "wilson_interval",
]

export(
    __name__,
    {
        "alp_repro.evaluation.evaluate": ("evaluate",),
        "alp_repro.evaluation.intervals": ("wilson_interval",),
        "alp_repro.evaluation.record": ("AttackRecord",),
        "alp_repro.evaluation.record_file": (
            "load_record",
            "save_record",
        ),
        "alp_repro.evaluation.restarts": ("Progress",),
        "alp_repro.evaluation.robust_accuracy": ("RobustAccuracy",),
        "alp_repro.evaluation.store": (
            "attack_file_name",
            "find_record",
        ),
    },
)
