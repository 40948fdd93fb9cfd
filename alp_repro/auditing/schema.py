"""The format of audit.json: its version, and the JSON Schema that comes with the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

# One more whenever a key goes, or means something else; a new key leaves it as it is.
SCHEMA_VERSION = 1


def audit_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what `Audit.to_json` returns."""
    file = resources.files("alp_repro.auditing") / "audit.schema.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))
