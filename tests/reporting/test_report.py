"""The report: it tells what is there, marks what differs, and names what is missing."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from alp_repro import files, runs
from alp_repro.attacks import PGD
from alp_repro.errors import InputError
from alp_repro.evaluation import wilson_interval
from alp_repro.reporting import figures, report
from alp_repro.reporting.table_files import write_table
from alp_repro.reporting.tables import Cell, Column, TableRow
from alp_repro.training import Recipe
from experiments.evidence import figure_list
from tests import command_runner

_ROOT = Path(__file__).resolve().parents[2]


def of_200(ours: float, restarts: int, by_paper: float) -> Cell:
    low, high = wilson_interval(round(2 * ours), 200)
    return Cell(ours, 100 * low, 100 * high, restarts, by_paper, 200)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scale's folder with one model, one table and one figure."""
    scale = tmp_path / "quick"
    run = runs.RunDir(scale / "mnist" / "clp")
    run.path.mkdir(parents=True)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    runs.save_model(run.model, model)
    weights = runs.weights_hash(model)
    recipe = Recipe(
        dataset="mnist",
        model="lenet",
        penalties={"clp": 0.5},
        noise_stddev=0.5,
        epochs=20,
        batch_size=200,
    )
    files.write_json(
        run.recipe,
        {
            "recipe": recipe.to_json(),
            "weights": weights,
            "data_source": "embedded IDX files",
            **runs.provenance(),
        },
    )
    rows = [
        TableRow(
            "clp",
            "CLP (λ = 0.5)",
            Cell(98.5, 97.0, 99.2, None, 98.8),
            # The paper's 29.1 lies outside the interval of the first; the two do not differ.
            (of_200(36.0, 1, 29.1), of_200(11.0, 100, 4.1)),
            "a <b>note</b>",
            model=weights,
        ),
        TableRow("lsq", "LSQ", Cell(by_paper=98.8), (Cell(by_paper=39.0), Cell(by_paper=5.0))),
    ]
    attack = PGD(eps=0.3, eps_iter=50 / 255, nb_iter=200)
    columns = [Column(attack, 1), Column(dataclasses.replace(attack, restarts=100), 10000)]
    write_table(
        scale / "tables",
        "table1",
        rows,
        columns,
        heading="Table 1",
        details={"table": 1, "scale": "quick", **runs.provenance()},
    )
    figures.save_figure(
        figures.loss_histograms(np.ones((1, 9)), ["image 0"]),
        scale / "figures",
        "figure7",
        caption="Restarts of <script>alert(1)</script>.",
        details={
            "dataset": "mnist",
            "models": {"clp": weights},
            "missing": [{"what": "the model of MNIST lsq", "command": "make lsq"}],
        },
    )
    return scale


class _Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_needs_nothing_else(folder: Path):
    text = report.render(report.collect(folder, expected=figure_list.expected("quick")))
    page = _Page(text)
    assert page.open == []  # every tag is closed, in its turn
    sources = [a[k] or "" for _, a in page.tags for k in ("src", "href", "srcset") if k in a]
    assert sources and all(s.startswith(("data:image/png;base64,", "#")) for s in sources)
    assert not re.search(r"url\(|@import|https?://", text)
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert all(s[1:] in targets for s in sources if s.startswith("#"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert "Restarts of <script>alert(1)</script>." in page.text and "a <b>note</b>" in page.text


def test_what_differs_from_the_paper_is_marked(folder: Path):
    found = report.collect(folder, expected=figure_list.expected("quick"))
    (table,) = found.tables
    assert (table.differing, table.compared) == (1, 3)
    page = _Page(report.render(found))
    marked = [attributes for tag, attributes in page.tags if attributes.get("class") == "differs"]
    assert len(marked) == 1
    words = " ".join(page.text.split())
    assert "11.0 ≠ 7.4 – 16.1" in words
    assert "36.0 29.7 – 42.9" in words and "36.0 ≠" not in words
    assert "r=10k (here r=100)" in words


def test_what_is_missing_has_its_command(folder: Path):
    missing = {
        part.what: part.command
        for part in report.collect(folder, expected=figure_list.expected("quick")).missing
    }
    assert "Table 1" not in missing and not any(what.startswith("Figure 7") for what in missing)
    assert missing["Table 2"] == ("python -m experiments.table --table=2 --scale=quick")
    assert missing["the model of MNIST lsq"] == "make lsq"
    (figure5,) = (command for what, command in missing.items() if what.startswith("Figure 5"))
    assert figure5 == (
        "python -m experiments.loss_surface --table=2 --scale=quick --rows=lsq --name=figure5"
    )


def test_what_is_of_a_model_that_was_replaced_is_not_shown(folder: Path):
    runs.save_model(
        folder / "mnist" / "clp" / "model.keras",
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]),
    )
    found = report.collect(folder, expected=figure_list.expected("quick"))
    (table,) = found.tables
    assert [cell.ours for cell in table.cells(table.rows[0])] == [None, None, None]
    assert found.figures == () and table.compared == 0
    missing = {part.what: part.command for part in found.missing}
    (figure7,) = (what for what in missing if what.startswith("Figure 7"))
    assert "drawn from an outdated model of CLP" in figure7
    assert missing[figure7].endswith("--name=figure7")
    text = " ".join(_Page(report.render(found)).text.split())
    assert "Not shown for CLP (λ = 0.5): its model has changed since the table was made" in text


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("tables/table1.json", "{"),
        ("tables/table1.json", '{"table": 1}'),
        ("figures/figure7.json", "[]"),
        ("mnist/clp/recipe.json", "[]"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, path: str, content: str):
    (folder / path).write_text(content)
    with pytest.raises(InputError, match=re.escape(Path(path).stem)):
        report.collect(folder, expected=figure_list.expected("quick"))


def test_a_figure_without_its_picture_is_told(folder: Path):
    (folder / "figures" / "figure7.png").unlink()
    with pytest.raises(InputError, match=r"figure7\.png"):
        report.collect(folder, expected=figure_list.expected("quick"))


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(InputError, match="nothing does not exist"):
        report.collect(tmp_path / "nothing")


def test_the_binary_writes_the_page_with_the_deviations(folder: Path):
    words = ["it", "experiments.report", f"--runs_dir={folder.parent}"]
    code, output = command_runner.run_all([words], cwd=_ROOT)["it"]
    assert code == 0 and "1 tables, 1 figures" in output, output
    page = (folder / "report.html").read_text()
    text = " ".join(_Page(page).text.split())
    assert "MNIST, CLP: 20 epochs (paper 500)" in text
    # Verdicts come before the numbers that they rest on, and terms are told.
    assert (
        text.index("look robust to PGD")
        < text.index("Adversarial accuracy The")
        < (text.index("Table 1 Model"))
    )
    assert "not yet tested" in text
    # Flags are named in commands alone.
    plain = re.sub("<style>.*?</style>|<code>.*?</code>", "", page, flags=re.DOTALL)
    assert "<code>" in page and "--" not in _Page(plain).text
    assert not re.search(
        r"\b(at50|nb_iter|eps_iter|train_dtype)\b", text.split("What is missing")[0]
    )
    assert "MNIST, evaluation: 200 images (paper 1000), at most 3 restarts of each attack" in text
    assert json.loads((folder / "mnist/clp/recipe.json").read_text())["date"][:10] in text
