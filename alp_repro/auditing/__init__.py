"""A verdict on an evaluation of any classifier: what it leaves, what survives, what is doubtful."""

from alp_repro.auditing.audit import audit
from alp_repro.auditing.kinds import Indicator
from alp_repro.auditing.result import AttackResult, Audit
from alp_repro.auditing.stages import Stage, attack_stages, default_attack

__all__ = [
    "AttackResult",
    "Audit",
    "Indicator",
    "Stage",
    "attack_stages",
    "audit",
    "default_attack",
]
