"""What is printed of progress, and when."""

from __future__ import annotations

import pytest

from alp_repro.tasks import Status
from experiments.console import display
from experiments.console.display import Display, duration
from experiments.running.estimates import TimeLeft


def test_without_a_terminal_a_line_a_minute_tells_of_all_tasks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    with Display(lambda _: "2 rows left") as shown:
        for second in range(130):
            now[0] = float(second)
            shown.report_status("clp", Status(f"step {second}"))
            if second == 100:
                shown.report_status("lsq", Status("begins"))
    assert capsys.readouterr().out.splitlines() == [
        "[2 rows left] clp: step 60",
        "[2 rows left] clp: step 120; lsq: begins",
    ]


def test_what_has_ended_is_told_no_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", -1.0)
    with Display() as shown:
        shown.report_status("clp", Status("one"))
        shown.ended("clp")
        shown.report_status("lsq", Status("two"))
        shown.print("a line")
    assert capsys.readouterr().out.splitlines() == ["clp: one", "lsq: two", "a line"]


def test_durations_are_in_the_unit_that_fits() -> None:
    told = [duration(seconds) for seconds in (5, 90, 3600, 7200, 200_000)]
    assert told == ["5 seconds", "1.5 minutes", "60.0 minutes", "2.0 hours", "2.3 days"]


def test_what_is_left_is_corrected_by_the_rows_that_are_done() -> None:
    clock = TimeLeft({"a": 100.0, "b": 200.0, "c": 50.0}, at_a_time=1)
    assert clock.seconds_left(0) == 350
    assert clock.seconds_left(30) == 320
    clock.ended("a", 50.0)  # half of what was foretold
    assert clock.seconds_left(50) == 125


def test_rows_beside_each_other_halve_what_is_left() -> None:
    clock = TimeLeft({"a": 100.0, "b": 150.0, "c": 150.0}, at_a_time=2)
    assert clock.seconds_left(0) == 200
    assert TimeLeft({}, at_a_time=2).seconds_left(0) is None


def test_a_row_alone_is_not_halved() -> None:
    clock = TimeLeft({"a": 100.0, "b": 300.0}, at_a_time=2)
    assert clock.seconds_left(0) == 300
    clock.ended("a", 50.0)
    assert clock.seconds_left(60) == 90


def test_what_is_left_is_no_less_than_a_row_at_work_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", -1.0)
    clock = TimeLeft({"a": 60.0, "b": 60.0}, at_a_time=2)
    with Display(clock.left) as shown:
        shown.report_status("a", Status("trains", 240.0))
        shown.report_status("b", Status("attacks", 30.0))
        shown.ended("a")
        shown.report_status("b", Status("attacks", 20.0))
    lines = capsys.readouterr().out.splitlines()
    assert "about 4.0 minutes] a:" in lines[0] and "about 4.0 minutes] a:" in lines[1]
    assert "about 60 seconds] b:" in lines[2]
