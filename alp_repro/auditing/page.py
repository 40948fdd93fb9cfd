"""The page of an audit: one HTML file, the picture first."""

from __future__ import annotations

import dataclasses

import numpy as np

from alp_repro.auditing import pictures
from alp_repro.auditing.result import Audit
from alp_repro.reporting.pages import render_page

TEMPLATE = "audit.html.j2"
SUMMARY = "summary.html.j2"
_EXAMPLES = 6


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table of attacks, formatted."""

    title: str
    settings: str
    attacked: int
    broken: int
    alone: str
    so_far: str
    interval: str
    spent: str
    seconds: str


@dataclasses.dataclass(frozen=True)
class Example:
    """One image that the evaluation under audit left and another attack broke."""

    place: int
    label: int
    found: int
    by: str
    clean: str
    added: str
    adversarial: str


def render(audit: Audit) -> str:
    """Return the page as one HTML text that needs no other file and no network."""
    return render_page(
        "alp_repro.auditing",
        TEMPLATE,
        audit=audit,
        picture=pictures.data_uri(pictures.accuracies(audit)) if audit.attacks else None,
        narrow=pictures.data_uri(pictures.accuracies(audit, narrow=True)) if audit.attacks else "",
        closer_looks=pictures.closer_looks(audit),
        rows=[_row(audit, i) for i in range(len(audit.attacks))],
        indicators=sorted(audit.indicators, key=_order),
        examples=_examples(audit),
        misled=_misled(audit),
    )


def render_summary(audit: Audit) -> str:
    """Return the verdict, the picture, the attacks and the raised indicators, as part of a page."""
    return render_page(
        "alp_repro.auditing",
        SUMMARY,
        audit=audit,
        picture=pictures.data_uri(pictures.accuracies(audit)) if audit.attacks else None,
        rows=[_row(audit, i) for i in range(len(audit.attacks))],
    )


def _order(one: object) -> int:
    return ("raised", "clear", "not judged").index(one.state)  # type: ignore[attr-defined]


def _row(audit: Audit, place: int) -> Row:
    one = audit.attacks[place]
    so_far, alone = audit.worst_after(place + 1), audit.accuracy_alone(one)
    low, high = audit.interval(so_far)
    return Row(
        title=one.title,
        settings=str(one.attack),
        attacked=len(one.attacked),
        broken=int(one.broken.sum()),
        alone="–" if alone is None else f"{alone:.1%}",
        so_far=f"{so_far:.1%}",
        interval=f"{low * 100:.1f} – {high * 100:.1f}",
        spent=f"{one.spent:,} {one.unit}",
        seconds=f"{one.seconds:,.0f} s",
    )


def _misled(audit: Audit) -> bool:
    """Return whether a later attack broke what the evaluation under audit left."""
    return bool((audit.broken_by > 0).any())


def _examples(audit: Audit) -> list[Example]:
    later = audit.broken_by > 0 if _misled(audit) else audit.broken_by >= 0
    return [
        Example(
            place=int(place),
            label=int(audit.labels[place]),
            found=int(audit.found[place]),
            by=audit.attacks[audit.broken_by[place]].title,
            clean=pictures.image_uri(audit.images[place]),
            added=pictures.image_uri(pictures.perturbation(audit, place)),
            adversarial=pictures.image_uri(audit.adversarial[place]),
        )
        for place in np.flatnonzero(later)[:_EXAMPLES]
    ]
