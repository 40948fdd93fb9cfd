"""A verdict on an evaluation of any classifier: what it leaves, what survives, what is doubtful."""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
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

export(
    __name__,
    {
        "alp_repro.auditing.audit": ("audit",),
        "alp_repro.auditing.kinds": ("Indicator",),
        "alp_repro.auditing.result": (
            "AttackResult",
            "Audit",
        ),
        "alp_repro.auditing.stages": (
            "Stage",
            "attack_stages",
            "default_attack",
        ),
    },
)
