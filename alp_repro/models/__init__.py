"""Models: the paper's architectures, and copies, identities and compiled programs of any model."""

from alp_repro.models.architectures import MODELS, build_model

__all__ = ["MODELS", "build_model"]
