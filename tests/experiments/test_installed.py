"""`pip install .` is enough: console scripts work in a folder that has no checkout."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.experiments.conftest import ROOT, Installed

pytestmark = pytest.mark.slow


def test_no_common_name_is_taken(installed: Installed) -> None:
    packages = {path.name for path in installed.site.iterdir() if path.suffix != ".dist-info"}
    assert packages == {"alp_repro", "alp_repro_cli", "bin"}


def test_every_flagfile_travels(installed: Installed) -> None:
    packaged = installed.site / "alp_repro" / "packaged" / "flags"
    ours = ROOT / "flags"
    for file in ours.rglob("*.cfg"):
        assert (packaged / file.relative_to(ours)).read_bytes() == file.read_bytes()


@pytest.fixture(scope="module")
def called(installed: Installed) -> dict[str, subprocess.CompletedProcess[str]]:
    """What console scripts did; those that need the table's model wait for it."""
    table = installed.run("alp-table", "--table=1", "--scale=smoke", "--only=plain")
    waiting = {
        "report": ["alp-report", "--scale=smoke"],
        "evaluate": [
            "alp-evaluate",
            "--runs_dir=runs/smoke",
            "--row=plain",
            "--attack=apgd,nb_iter=3",
            "--num_images=10",
        ],
        "figures": ["alp-figures", "--scale=smoke", "--only=training_mnist"],
        "help": ["alp-train", "--help"],
    }
    with ThreadPoolExecutor(2) as pool:
        ended = pool.map(lambda command: installed.run(*command), waiting.values())
        return {"table": table, **dict(zip(waiting, ended, strict=True))}


def test_a_table_is_made_from_the_wheel_alone(
    installed: Installed, called: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    assert called["table"].returncode == 0, called["table"].stderr
    table = json.loads((installed.work / "runs/smoke/tables/table1.json").read_text("utf-8"))
    assert table["revision"].startswith("alp_repro ")
    assert "| Plain | " in called["table"].stdout

    (record,) = installed.data_dir.glob("mnist/*/alp_repro_source.json")
    shipped = installed.site / "alp_repro" / "packaged" / "mnist"
    assert json.loads(record.read_text("utf-8"))["origin"] == str(shipped)


def test_its_model_is_reported_drawn_and_attacked(
    installed: Installed, called: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    assert called["report"].returncode == 0, called["report"].stderr
    assert (installed.work / "runs/smoke/report.html").is_file()
    assert called["figures"].returncode == 0, called["figures"].stderr
    assert (installed.work / "runs/smoke/figures/training_mnist.png").is_file()
    assert called["evaluate"].returncode == 0, called["evaluate"].stderr
    assert called["evaluate"].stdout.splitlines()[-1].startswith("apgd eps=76.5 n=3 r=1")


def test_help_of_a_console_script_lists_its_flags(
    called: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    shown = called["help"].stdout
    assert "Trains one model into its run folder" in shown
    assert "--regularizer:" in shown and "--[no]tensorboard:" in shown
