"""Figures 1–7, heat maps, restart and training curves, drawn from numbers.

Each function takes results and returns a matplotlib `Figure`; `save_figure` writes it with its
caption. Their common style is in `figures.mplstyle`. Perturbation sizes are on the 0–255 scale.
"""

from typing import TYPE_CHECKING

from alp_repro.lazy_exports import export

if TYPE_CHECKING:
    from alp_repro.reporting.figures.curves import restart_curves, training_curves
    from alp_repro.reporting.figures.heat_maps import heat_map_panels
    from alp_repro.reporting.figures.histograms import (
        CASES,
        loss_histograms,
        recorded_losses,
        typical_cases,
    )
    from alp_repro.reporting.figures.positions import parse_positions, pick_images
    from alp_repro.reporting.figures.style import WIDTH, figure_style, save_figure
    from alp_repro.reporting.figures.surfaces import surface_panels

__all__ = [
    "CASES",
    "WIDTH",
    "figure_style",
    "heat_map_panels",
    "loss_histograms",
    "parse_positions",
    "pick_images",
    "recorded_losses",
    "restart_curves",
    "save_figure",
    "surface_panels",
    "training_curves",
    "typical_cases",
]

export(
    __name__,
    {
        "alp_repro.reporting.figures.curves": (
            "restart_curves",
            "training_curves",
        ),
        "alp_repro.reporting.figures.heat_maps": ("heat_map_panels",),
        "alp_repro.reporting.figures.histograms": (
            "CASES",
            "loss_histograms",
            "recorded_losses",
            "typical_cases",
        ),
        "alp_repro.reporting.figures.positions": (
            "parse_positions",
            "pick_images",
        ),
        "alp_repro.reporting.figures.style": (
            "WIDTH",
            "figure_style",
            "save_figure",
        ),
        "alp_repro.reporting.figures.surfaces": ("surface_panels",),
    },
)
