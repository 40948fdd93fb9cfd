"""Evaluation: a model, images and attacks in; adversarial accuracies out, kept on disk if asked."""

from alp_repro.evaluation.evaluate import DEFAULT_BATCH, evaluate, predictions
from alp_repro.evaluation.intervals import wilson_interval
from alp_repro.evaluation.record import AttackRecord
from alp_repro.evaluation.record_file import load_record, save_record
from alp_repro.evaluation.restarts import Progress, attack_with_restarts
from alp_repro.evaluation.store import attack_name, find_record

__all__ = [
    "DEFAULT_BATCH",
    "AttackRecord",
    "Progress",
    "attack_name",
    "attack_with_restarts",
    "evaluate",
    "find_record",
    "load_record",
    "predictions",
    "save_record",
    "wilson_interval",
]
