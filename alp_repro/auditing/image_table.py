"""The table of an audit's images: which attack broke each, and at what cost."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro.errors import InputError

if TYPE_CHECKING:
    import pandas

    from alp_repro.auditing.result import Audit

# What docs/how_to_read_an_audit.md explains.
COLUMNS = (
    "image",
    "label",
    "prediction",
    "correct",
    "robust",
    "broken_by",
    "restart",
    "adversarial_prediction",
    "distance",
    "gradients",
    "queries",
)


def image_rows(audit: Audit) -> list[dict[str, Any]]:
    """Return one row per image, with a value for each of `COLUMNS`, None where there is none.

    The cost of an image is what the attacks up to the one that broke it spent on it, or all of them
    where none did. Distances are on the 0-255 scale, restarts are counted from 1.
    """
    spent = _spent(audit)
    return [_row(audit, place, spent) for place in range(len(audit.labels))]


def _spent(audit: Audit) -> dict[str, np.ndarray]:
    """Int [n] of each unit: what was spent on each image until it broke."""
    spent = {unit: np.zeros(len(audit.labels), int) for unit in ("gradients", "queries")}
    for place, attack in enumerate(audit.attacks):
        broken_by = audit.broken_by[attack.attacked]
        before = (broken_by < 0) | (broken_by >= place)
        spent[attack.unit][attack.attacked[before]] += attack.costs[before]
    return spent


def _row(audit: Audit, place: int, spent: dict[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "image": place,
        "label": int(audit.labels[place]),
        "prediction": int(audit.predictions[place]),
        "correct": bool(audit.correct[place]),
        "gradients": int(spent["gradients"][place]),
        "queries": int(spent["queries"][place]),
    }
    if not audit.not_measured:
        row["robust"] = bool(audit.robust[place])
    if audit.broken_by[place] >= 0:
        attack = audit.attacks[audit.broken_by[place]]
        (at,) = np.flatnonzero(attack.attacked == place)
        distance = np.abs(audit.adversarial[place].astype(float) - audit.images[place])
        row |= {
            "broken_by": attack.name,
            "restart": int(attack.first_break[at]) + 1,
            "adversarial_prediction": int(audit.found[place]),
            "distance": round(float(distance.max()) * 255, 4),
        }
    return row


def to_csv(audit: Audit) -> str:
    """Return the table as CSV: true and false, and an empty field where there is no value."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in image_rows(audit):
        writer.writerow(
            {name: str(v).lower() if isinstance(v, bool) else v for name, v in row.items()}
        )
    return text.getvalue()


def to_dataframe(audit: Audit) -> pandas.DataFrame:
    """Return the table with `image` as its index, missing values as pandas has them.

    Raises:
      InputError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise InputError("to_dataframe needs pandas: pip install pandas") from None
    return pd.DataFrame(image_rows(audit), columns=COLUMNS).convert_dtypes().set_index("image")
