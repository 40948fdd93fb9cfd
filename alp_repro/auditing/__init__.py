"""A verdict on an evaluation of any classifier: what it leaves, what survives, what is doubtful."""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
    from alp_repro.auditing.attack_result import AttackResult
    from alp_repro.auditing.audit import audit
    from alp_repro.auditing.plan import audit_phases, default_attack
    from alp_repro.auditing.result import Audit
    from alp_repro.auditing.specs import Indicator

__all__ = [
    "AttackResult",
    "Audit",
    "Indicator",
    "audit",
    "audit_phases",
    "default_attack",
]

export(
    __name__,
    {
        "alp_repro.auditing.attack_result": ("AttackResult",),
        "alp_repro.auditing.audit": ("audit",),
        "alp_repro.auditing.specs": ("Indicator",),
        "alp_repro.auditing.plan": ("audit_phases", "default_attack"),
        "alp_repro.auditing.result": ("Audit",),
    },
)
