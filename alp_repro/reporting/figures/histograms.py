"""Draws the final losses of restarts (Figures 2 and 7), and selects typical images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alp_repro.errors import InputError
from alp_repro.reporting.figures.style import RED, WIDTH, figure_style, percent

if TYPE_CHECKING:
    from alp_repro.evaluation import AttackRecord

# From this cross-entropy on the true class of ten has a probability of at most 0.1, so that
# another class must be ahead (or all ten are level).
CERTAIN_LOSS = -math.log(0.1)
CASES = {
    "never": "none of the restarts breaks it, though more might",
    "needs many restarts": "some restarts break it, fewer than 5%",
    "depends on the restart": "5% to 95% of the restarts break it",
    "always": "99% or more of the restarts end right of the red line",
}


@figure_style()
def loss_histograms(
    losses: np.ndarray, titles: Sequence[str], *, broken: np.ndarray | None = None
) -> Figure:
    """Draw histograms of the final losses of restarts, a panel for each image (Figures 2 and 7).

    Each panel has its own axes and bins. The red line is at −ln 0.1, unless that is so far from all
    losses that they would show as one bar. A title's last line has the share of restarts that end
    right of it and, if `broken` is given, the share that broke the image.

    Args:
      losses: float [images, restarts], in nats.
      titles: of the images.
      broken: bool [images, restarts].
    """
    columns = min(4, len(losses))
    rows = -(-len(losses) // columns)
    figure = Figure(figsize=(WIDTH, 0.35 + rows * 1.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (axes, title) in enumerate(zip(panels, titles, strict=False)):
        counts, _, _ = axes.hist(losses[i], bins=_bins(losses[i]), log=True)
        axes.set_ylim(0.7, counts.max() * 2)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        left, right = axes.get_xlim()
        if left <= CERTAIN_LOSS <= right:
            axes.axvline(CERTAIN_LOSS, color=RED)
        shares = _shares(losses[i], None if broken is None else broken[i])
        axes.set_title(f"{title}\n{shares}", fontsize=7.5)
    for axes in panels[len(losses) :]:
        axes.set_visible(False)
    figure.supxlabel("final cross-entropy of a restart", fontsize=8)
    figure.supylabel("restarts", fontsize=8)
    return figure


def _bins(losses: np.ndarray) -> np.ndarray:
    """Return the edges of 40 bins over all losses, extended to the red line if it is close."""
    low, high = float(losses.min()), float(losses.max())
    width = max(high - low, 0.01)
    if high < CERTAIN_LOSS <= high + 3 * width:
        high = CERTAIN_LOSS + 0.05 * width
    if low - 3 * width <= CERTAIN_LOSS < low:
        low = CERTAIN_LOSS - 0.05 * width
    return np.linspace(low, max(high, low + width), 41)


def _shares(losses: np.ndarray, broken: np.ndarray | None) -> str:
    lines = [f"{percent(float(np.mean(losses > CERTAIN_LOSS)))} right"]
    if broken is not None:
        lines.append(f"{percent(float(np.mean(broken)))} broken")
    return ", ".join(lines)


def recorded_losses(record: AttackRecord, restarts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return losses and outcomes, [images, restarts] each, of a record that has them.

    Raises:
      InputError: none were recorded, or of too few restarts.
    """
    if record.losses is None or record.broken is None:
        raise InputError(
            "this attack result has no losses: run the attack again with record_losses"
        )
    if not record.complete_to(restarts):
        raise InputError(
            f"this attack result has losses of {int(record.next_restart.min())} restarts, but "
            f"expected {restarts}: continue the attack"
        )
    return record.losses[:, :restarts], record.broken[:, :restarts]


def typical_cases(losses: np.ndarray, broken: np.ndarray) -> dict[str, int]:
    """Select the images of Figure 2, one for each of the four `CASES`, if there is one.

    It is the first image whose restarts end on both sides of the red line, or else the first.

    Args:
      losses, broken: float and bool, [images, restarts].

    Returns:
      Case -> position of the image.
    """
    share, right = broken.mean(axis=1), (losses > CERTAIN_LOSS).mean(axis=1)
    members = {
        "never": share == 0,
        "needs many restarts": (share > 0) & (share < 0.05),
        "depends on the restart": (share >= 0.05) & (share <= 0.95),
        "always": right >= 0.99,
    }
    on_both_sides = (right > 0) & (right < 1)
    chosen = {}
    for case, found in members.items():
        if found.any():
            best = found & on_both_sides
            chosen[case] = int(np.argmax(best if best.any() else found))
    return chosen
