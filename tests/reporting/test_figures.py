"""Figures: what is drawn is what was measured, and the choices that a caption states."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from alp_repro.data import Images
from alp_repro.errors import InputError
from alp_repro.evaluation.heat_maps import HeatMap
from alp_repro.evaluation.landscape import FLAT
from alp_repro.evaluation.record import AttackRecord, new_record
from alp_repro.reporting import figures
from alp_repro.training.log import read_log


def _record(first_break: list[int], *, reached: int, losses: bool = False) -> AttackRecord:
    n = len(first_break)
    fresh = new_record(
        labels=np.zeros(n, int),
        indices=np.arange(n),
        clean_predictions=np.zeros(n, int),
        settings={},
        record_losses=losses,
    )
    broken_at = np.array(first_break)
    return dataclasses.replace(
        fresh,
        first_break=broken_at,
        next_restart=np.where(broken_at < 0, reached, broken_at + 1),
    )


def _panels(figure: Figure) -> list:
    return [axes for axes in figure.axes if axes.get_visible()]


def test_histograms_show_every_restart_the_line_and_the_shares():
    losses = np.array([[0.5, 1.0, 2.0, 2.2, 2.4], [3.0, 3.1, 3.2, 3.3, 3.4]])
    broken = np.array([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]], bool)
    figure = figures.loss_histograms(losses, ["one", "two"], broken=broken)
    first, second = _panels(figure)
    for axes in (first, second):
        assert sum(patch.get_height() for patch in axes.patches) == 5
        assert axes.get_yscale() == "log"
        (line,) = axes.lines
        assert line.get_xdata()[0] == pytest.approx(2.302585, abs=1e-6)
        assert to_hex(line.get_color()) == "#c00000"
    # Nothing is written over the bars or the line.
    assert not first.texts and not second.texts
    assert first.get_title() == "one\n20.0% right, 40.0% broken"
    assert second.get_title() == "two\n100% right, 100% broken"


def test_a_share_is_never_rounded_to_none_or_all():
    losses = np.zeros((1, 5000))
    losses[0, 7] = 9.0
    assert figures.loss_histograms(losses, ["hard"]).axes[0].get_title() == "hard\n<0.1% right"
    assert figures.loss_histograms(9 - losses, ["soft"]).axes[0].get_title() == "soft\n>99.9% right"


def test_typical_cases_follow_the_stated_rule():
    restarts = 100
    right = {0: 0, 1: 0, 2: 0, 3: 0, 4: 30, 5: 98, 6: 100, 7: 50, 8: 1}
    hit = {0: 0, 1: 3, 2: 0, 3: 40, 4: 60, 5: 100, 6: 100, 7: 100, 8: 4}
    losses = np.array([[3.0] * right[i] + [1.0] * (restarts - right[i]) for i in range(9)])
    broken = np.array([[True] * hit[i] + [False] * (restarts - hit[i]) for i in range(9)])
    assert figures.typical_cases(losses, broken) == {
        "never": 0,
        "needs many restarts": 8,  # image 1 is earlier, but on one side of the line
        "depends on the restart": 4,  # so is image 3
        "always": 6,  # image 5 is broken always, but 2% end left of the line
    }
    assert figures.typical_cases(losses[:1], broken[:1]) == {"never": 0}


def test_losses_that_were_not_recorded_are_told():
    with pytest.raises(InputError, match="record_losses"):
        figures.recorded_losses(_record([0, 1], reached=2), 2)
    record = _record([0, -1], reached=2, losses=True)
    with pytest.raises(InputError, match=r"losses of 1 restarts, .* 2"):
        figures.recorded_losses(record, 2)


def test_restart_curves_are_the_records_accuracies():
    records = {
        "long": _record([0, 0, 2, 5, -1, -1], reached=8),
        "short": _record([1, -1, -1, -1], reached=3),
    }
    (axes,) = _panels(figures.restart_curves(records, restarts=8))
    long, short = axes.lines
    np.testing.assert_array_equal(long.get_xdata(), np.arange(1, 9))
    np.testing.assert_allclose(
        long.get_ydata(), [records["long"].accuracy_at(r) for r in range(1, 9)]
    )
    np.testing.assert_allclose(short.get_ydata(), [1.0, 0.75, 0.75])
    assert axes.get_xscale() == "log"
    band = axes.collections[0].get_paths()[0].vertices
    low, high = records["long"].interval_at(8)
    at_the_end = band[band[:, 0] == 8.0, 1]
    assert {at_the_end.min(), at_the_end.max()} == {low, high}


def test_lines_that_overlap_are_drawn_again_in_an_inset():
    standing = {"a": 90, "b": 91, "c": 93, "far": 20}
    records = {name: _record([0] * (100 - n) + [-1] * n, reached=5) for name, n in standing.items()}
    (axes,) = _panels(figures.restart_curves(records, restarts=5))
    (inside,) = axes.child_axes
    assert [line.get_label() for line in inside.lines] == ["a", "b", "c"]
    for line in inside.lines:
        (whole,) = (one for one in axes.lines if one.get_label() == line.get_label())
        assert line.get_color() == whole.get_color()
        np.testing.assert_array_equal(line.get_ydata(), whole.get_ydata())
    assert np.ptp(inside.get_ylim()) < 0.1
    del records["c"]
    assert not _panels(figures.restart_curves(records, restarts=5))[0].child_axes


def test_heat_maps_have_colours_of_their_own_and_name_the_lowest_cell():
    def heat_map(broken: np.ndarray) -> HeatMap:
        return HeatMap(
            broken,
            np.array([0.01, 0.1, 0.3]),
            np.array([40, 400]),
            columns=3,
            settings={},
            sessions=[],
        )

    broken = np.zeros((3, 2, 4), bool)
    broken[1, 1, :3] = True
    some, none = heat_map(broken), heat_map(np.zeros((3, 2, 4), bool))
    figure = figures.heat_map_panels({"some": some, "none": none})
    left, right, *bars = figure.axes
    assert left.get_title() == "some: lowest 25.0%"
    assert right.get_title() == "none: lowest 100%, in 6 cells"
    np.testing.assert_allclose(
        np.reshape(left.collections[0].get_array(), (2, 3)), [[1, 1, 1], [1, 0.25, 1]]
    )
    assert left.collections[0].get_clim() == (0.25, 1)
    assert right.collections[0].get_clim() == (0.99, 1)  # no wider than what differs
    assert [text.get_text() for text in left.texts] == ["100"] * 3 + ["25"] + ["100"] * 2
    assert len(bars) == 2


def test_every_cell_with_the_lowest_accuracy_of_a_large_heat_map_is_marked():
    broken = np.zeros((9, 8, 10), bool)
    broken[2, 3, :4] = broken[7, 5, 3:7] = True
    found = HeatMap(
        broken, np.arange(1, 10) / 255, np.arange(8), columns=9, settings={}, sessions=[]
    )
    axes = figures.heat_map_panels({"tied": found}).axes[0]
    assert axes.get_title() == "tied: lowest 60.0%, in 2 cells"
    (crosses,) = axes.lines
    assert sorted(np.round(crosses.get_xdata())) == [3, 8]
    assert sorted(crosses.get_ydata()) == [3, 5]


@pytest.mark.parametrize("share", [True, False])
def test_surface_panels_have_their_titles_and_loss_axes(share: bool):
    a, b = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij")
    losses = np.stack([a + b, 10 * (a - b), np.zeros_like(a)])
    figure = figures.surface_panels(
        losses, np.linspace(-0.15, 0.15, 9), ["x", "y", "flat"], share_loss_axis=share
    )
    panels = _panels(figure)
    assert [axes.get_title() for axes in panels] == ["x", "y", "flat"]
    tops = [axes.get_zlim()[1] for axes in panels]
    assert tops == pytest.approx([20, 20, 20] if share else [2, 20, FLAT], abs=1e-5)
    for axes in panels:
        labels = [text.get_text() for text in axes.get_xticklabels()]
        assert labels == ["−38.25", "0", "38.25"]


def test_rounding_does_not_look_like_a_surface():
    rough = np.random.default_rng(0).uniform(0, 1e-6, (1, 9, 9))
    (axes,) = _panels(figures.surface_panels(rough, np.linspace(-0.1, 0.1, 9), ["flat"]))
    low, high = axes.get_zlim()
    assert high - low > 50 * np.ptp(rough)


def test_a_surface_is_seen_over_its_low_corner():
    a, b = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij")
    offsets = np.linspace(-0.1, 0.1, 9)
    for losses, corner in ((a + b, (-1, -1)), (b - a, (1, -1)), (a - b, (-1, 1))):
        (axes,) = _panels(figures.surface_panels(losses[None], offsets, ["slope"]))
        viewer = np.deg2rad(axes.azim)
        assert (np.sign(np.cos(viewer)), np.sign(np.sin(viewer))) == corner


def test_a_misclassified_image_is_marked():
    figure = figures.surface_panels(
        np.zeros((2, 9, 9)), np.linspace(-0.1, 0.1, 9), ["right", "wrong"], marked=[False, True]
    )
    right, wrong = _panels(figure)
    assert to_hex(wrong.title.get_color()) == "#c00000" != to_hex(right.title.get_color())


_LOG = """epoch,accuracy,adversarial_accuracy,alp,clean_ce,loss,val_loss
0,0.5,0.25,0.5,1.0,1.5,NA
1,0.6,0.35,0.4,0.9,1.3,NA
1,0.7,0.45,0.3,0.8,1.1,NA
2,0.8,0.55,0.2,0.7,0.9,NA
"""


def test_training_logs_are_read_and_drawn(tmp_path: Path):
    path = tmp_path / "training.csv"
    path.write_text(_LOG)
    log = read_log(path)
    np.testing.assert_array_equal(log["epoch"], [0, 1, 2])
    np.testing.assert_array_equal(log["accuracy"], [0.5, 0.7, 0.8])  # epoch 1 was begun twice
    assert set(log) == {"epoch", "accuracy", "adversarial_accuracy", "loss", "alp", "clean_ce"}
    above, below = _panels(figures.training_curves({"Plain + ALP": log}))
    labels = [line.get_label() for line in above.lines]
    assert labels == ["training, clean", "training, adversarial"]
    np.testing.assert_array_equal(above.lines[1].get_ydata(), [0.25, 0.45, 0.55])
    assert [line.get_label() for line in below.lines] == ["CE clean", "ALP"]
    np.testing.assert_array_equal(below.lines[0].get_xdata(), [1, 2, 3])


def test_training_curves_show_looks_at_the_test_images_and_one_legend():
    nan = np.nan
    with_looks = {
        "epoch": np.arange(3.0),
        "accuracy": np.array([0.1, 0.5, 0.9]),
        "test_accuracy": np.array([nan, 0.6, nan]),
        "test_adversarial_accuracy": np.array([0.0, nan, 0.3]),
        "clean_ce": np.array([2.0, 1.0, 0.5]),
    }
    never = {**with_looks, "test_accuracy": np.full(3, nan), "lsq": np.ones(3)}
    figure = figures.training_curves({"CLP": with_looks, "LSQ": never})
    first, second, *_ = _panels(figure)
    drawn = {line.get_label(): line for line in first.lines}
    np.testing.assert_array_equal(drawn["test, clean"].get_xdata(), [2])
    np.testing.assert_array_equal(drawn["test, adversarial"].get_xdata(), [1, 3])
    assert "test, clean" not in {line.get_label() for line in second.lines}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "training, clean",
        "test, clean",
        "test, adversarial",
        "CE clean",
        "LSQ",
    ]
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_a_panel_of_a_histogram_has_bins_of_its_own():
    losses = np.array([np.linspace(0, 0.02, 100), np.linspace(0, 9, 100)])
    small, wide = _panels(figures.loss_histograms(losses, ["small", "wide"]))
    assert small.get_xlim()[1] < 0.1 and wide.get_xlim()[1] > 9
    assert not small.lines and len(wide.lines) == 1  # the red line is far from the first


@pytest.mark.parametrize("name", ["../figure", "a/b", ".hidden", ""])
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: str):
    figure = figures.loss_histograms(np.ones((1, 9)), ["one"])
    with pytest.raises(InputError, match="without folders"):
        figures.save_figure(figure, tmp_path / "figures", name, caption="", details={})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    figure = figures.loss_histograms(np.ones((1, 9)), ["one"])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(InputError, match=r"figure7\.pdf \(No space left on device\)"):
        figures.save_figure(figure, tmp_path, "figure7", caption="", details={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "epoch,loss\n", "a,b\n1,2\n", "epoch,loss\n0,high\n"])
def test_a_training_log_that_is_none_is_told(tmp_path: Path, text: str):
    path = tmp_path / "training.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"training\.csv"):
        read_log(path)
    with pytest.raises(InputError, match=r"other\.csv .*: train"):
        read_log(tmp_path / "other.csv")


def test_positions_are_parsed_and_bounded():
    assert figures.parse_positions("0-3") == [0, 1, 2, 3]
    assert figures.parse_positions("7, 2,10-11") == [7, 2, 10, 11]
    for text in ("", "a", "1-", "-1", "3-1", "1,1", "0-2,2"):
        with pytest.raises(InputError, match="positions"):
            figures.parse_positions(text)
    data = Images(np.arange(5), np.arange(5) * 10, np.arange(5), "made")
    assert figures.pick_images(data, [4, 0]).labels.tolist() == [40, 0]
    with pytest.raises(InputError, match=r"image 5: .*from 0 to 4"):
        figures.pick_images(data, [1, 5])


def test_a_matplotlibrc_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """text.usetex without LaTeX would end a figure with an error."""

    def written(folder: Path) -> bytes:
        with figures.figure_style():
            figure = Figure(figsize=(2, 1))
            figure.subplots().set_title("percent %")
        return figures.save_figure(figure, folder, "a", caption="c", details={}).read_bytes()

    plain = written(tmp_path / "plain")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "no number")
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9, "font.size": 30}):
        assert written(tmp_path / "tex") == plain


@pytest.mark.slow
def test_the_same_numbers_give_the_same_files(tmp_path: Path):
    losses = np.random.default_rng(0).exponential(size=(2, 50))
    for folder in ("first", "second"):
        figure = figures.loss_histograms(losses, ["one", "two"])
        path = figures.save_figure(
            figure, tmp_path / folder, "figure7", caption="What it shows.", details={"scale": "x"}
        )
        assert path == tmp_path / folder / "figure7.png"
    for suffix in ("png", "pdf"):
        one, other = (tmp_path / f / f"figure7.{suffix}" for f in ("first", "second"))
        assert one.read_bytes() == other.read_bytes()
    notes = json.loads((tmp_path / "first" / "figure7.json").read_text())
    assert notes["caption"] == "What it shows." and notes["scale"] == "x"
    assert notes["revision"] and notes["date"]
    assert {file.suffix for file in (tmp_path / "first").iterdir()} == {".png", ".pdf", ".json"}
