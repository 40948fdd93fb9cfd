"""What figures show, counted: maxima around images, and starts that are good or not."""

from __future__ import annotations

import numpy as np
import pytest

from alp_repro.evaluation.landscape import Plane, Surfaces
from alp_repro.reporting import figure_numbers

SIDE = np.linspace(-1, 1, 41)
A, B = np.meshgrid(SIDE, SIDE, indexing="ij")
SLOPE = A + B
PEAK = -(A**2) - B**2  # one maximum, at the image
WAVES = np.cos(2 * np.pi * (A - 0.25)) * np.cos(2 * np.pi * B)  # several, none at the image
ONE_AWAY = -((A - 0.5) ** 2) - B**2


def surfaces(*losses: np.ndarray) -> Surfaces:
    n = len(losses)
    every = np.stack(losses).astype(np.float32)
    return Surfaces(every, np.zeros(n, np.int32), np.arange(n), Plane(radius=0.1, resolution=41))


def test_maxima_are_counted_at_the_image_and_away_from_it() -> None:
    shares = figure_numbers.shares_of_maxima(surfaces(SLOPE, PEAK, WAVES, ONE_AWAY))
    assert {name: cell.ours for name, cell in shares.items()} == {
        "some maxima": 50.0,
        "many maxima": 25.0,
        "maximum at image": 25.0,
    }
    assert all(cell.images == 4 and cell.low < cell.ours < cell.high for cell in shares.values())
    first = figure_numbers.maxima_around_first(surfaces(WAVES, SLOPE))
    assert (first.ours, first.images) == (6.0, 1)
    # Rounding on a flat surface has none.
    flat = surfaces(1e-6 * WAVES)
    assert figure_numbers.maxima_around_first(flat).ours == 0
    assert figure_numbers.shares_of_maxima(flat)["some maxima"].ours == 0


@pytest.mark.parametrize(("hits", "share"), [([0, 1, 49, 50, 100], 40.0), ([0, 0, 80], 0.0)])
def test_a_good_start_is_needed_where_fewer_than_half_of_the_restarts_break(
    hits: list[int], share: float
) -> None:
    broken = np.array([np.arange(100) < count for count in hits])
    assert figure_numbers.share_of_good_starts(broken).ours == share
