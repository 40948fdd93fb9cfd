"""Curves: adversarial accuracy by restarts, accuracies and losses by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from alp_repro.evaluation import AttackRecord, wilson_interval
from alp_repro.losses import PENALTIES
from alp_repro.reporting.figures.style import DASHES, WIDTH, figure_style
from alp_repro.reporting.results import reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_CLOSE = 0.05  # accuracies: closer curves overlap on an axis from 0 to 1


@figure_style()
def restart_curves(records: Mapping[str, AttackRecord], *, restarts: int) -> Figure:
    """Draw adversarial accuracy against restarts with its 95% Wilson band, a line for each model.

    Three or more lines that end within a few points of each other are drawn again, larger, in an
    inset.

    Args:
      records: label -> result of the attack.
      restarts: the number of restarts to draw; a line ends earlier if its record has fewer.
    """
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for i, (label, record) in enumerate(records.items()):
        whole = record.complete_to(restarts)
        counts = np.arange(1, (restarts if whole else min(restarts, reach(record))) + 1)
        robust = np.array([record.robust_at(int(r)) for r in counts])
        bands = np.array([wilson_interval(int(k), len(record.labels)) for k in robust])
        curves[label] = counts, robust / len(record.labels)
        line = _curve(axes, i, label, *curves[label])
        axes.fill_between(
            counts, bands[:, 0], bands[:, 1], color=line.get_color(), alpha=0.13, linewidth=0
        )
    _restart_axis(axes, restarts)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    top = max(values.max() for _, values in curves.values())
    axes.set_ylim(-0.02, 1.02 if top > 0.4 else 1.5 * top + 0.03)
    axes.set_xlabel("restarts r")
    axes.set_ylabel("adversarial accuracy")
    close = close_curves({label: values for label, (_, values) in curves.items()})
    if close and top > 0.4:
        _inset(axes, curves, close)
    figure.legend(loc="outside right upper")
    return figure


def _curve(
    axes: Axes, i: int, label: str, counts: np.ndarray, values: np.ndarray, marked: int = 20
) -> Line2D:
    """Draw one line; those of a few points have markers."""
    marker = "o" if len(counts) < marked else None
    (line,) = axes.plot(
        counts, values, DASHES[i % len(DASHES)], color=f"C{i}", label=label, marker=marker
    )
    return line


def _restart_axis(axes: Axes, restarts: int) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if restarts > 5 else range(1, 10)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def close_curves(values: Mapping[str, np.ndarray]) -> list[str]:
    """Choose the labels of the most curves that end within `_CLOSE` of each other.

    Args:
      values: label -> accuracies by restarts.

    Returns:
      Three labels or more, in their order; [] where no three are so close.
    """
    ends = {label: float(curve[-1]) for label, curve in values.items()}
    groups = [
        [label for label, end in ends.items() if low <= end <= low + _CLOSE]
        for low in ends.values()
    ]
    most = max(groups, key=len, default=[])
    return most if len(most) > 2 else []


def _inset(
    axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], close: Sequence[str]
) -> None:
    """Draw the close curves again on axes of their own, in the free middle of the panel."""
    inside = axes.inset_axes((0.43, 0.43, 0.55, 0.36))
    last = 1
    for i, (label, (counts, values)) in enumerate(curves.items()):
        if label in close:
            _curve(inside, i, label, counts, values, marked=30).set_markersize(2.5)
            last = max(last, len(counts))
    _restart_axis(inside, last)
    inside.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    inside.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    inside.tick_params(labelsize=6)
    inside.set_title("the same lines, larger", fontsize=6.5)


_ACCURACIES = {
    "accuracy": "training, clean",
    "adversarial_accuracy": "training, adversarial",
    "test_accuracy": "test, clean",
    "test_adversarial_accuracy": "test, adversarial",
}


def term_labels() -> dict[str, str]:
    """Return legends of the terms of the training loss, by their columns in training.csv."""
    return {
        "clean_ce": "CE clean",
        "adversarial_ce": "CE adversarial",
        **{name: penalty.label for name, penalty in PENALTIES.items()},
        "weight_decay": "weight decay",
    }


@figure_style()
def training_curves(logs: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw accuracies (above) and weighted loss terms (below) by epoch, a column for each model.

    Test accuracies are drawn if a log has them, with points at the epochs of measurements.

    Args:
      logs: title -> result of `training.log.read_log`.
    """
    columns = min(4, len(logs))
    bands = -(-len(logs) // columns)
    figure = Figure(figsize=(WIDTH, 0.8 + 2.7 * bands), layout="constrained")
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_visible(False)
    lines: dict[str, Line2D] = {}
    for i, (title, log) in enumerate(logs.items()):
        band, column = divmod(i, columns)
        above, below = panels[2 * band : 2 * band + 2, column]
        above.set_title(title)
        lines |= _lines(above, log, _ACCURACIES)
        above.set_ylim(0, 1.02)
        above.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        lines |= _lines(below, log, term_labels())
        below.set_ylim(0, None)
        below.set_xlabel("epoch")
        if column == 0:
            above.set_ylabel("accuracy")
            below.set_ylabel("weighted loss term")
        else:
            above.tick_params(labelleft=False)
    shown = [name for name in (*_ACCURACIES, *term_labels()) if name in lines]
    labels = [(_ACCURACIES | term_labels())[name] for name in shown]
    figure.legend([lines[n] for n in shown], labels, loc="outside lower center", ncols=4)
    return figure


def _lines(
    axes: Axes, log: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> dict[str, Line2D]:
    """Draw the columns that a log has; each has the same colour and dashes in every panel."""
    axes.set_visible(True)
    drawn = {}
    for i, (name, label) in enumerate(names.items()):
        known = np.isfinite(log[name]) if name in log else np.zeros(0, bool)
        if not known.any():
            continue
        (drawn[name],) = axes.plot(
            log["epoch"][known] + 1,
            log[name][known],
            DASHES[i % len(DASHES)],
            color=f"C{i}",
            label=label,
            marker="o" if known.sum() < 15 else None,
        )
    if len(log["epoch"]) == 1:  # only whole epochs have a tick
        axes.set_xlim(log["epoch"][0] + 0.5, log["epoch"][0] + 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    return drawn
