"""Models: the paper's architectures, and copies, identities and compiled programs of any model."""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
    from alp_repro.models.architectures import MODELS, build_model

__all__ = ["MODELS", "build_model"]

export(__name__, {"alp_repro.models.architectures": ("MODELS", "build_model")})
