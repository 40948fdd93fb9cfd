"""Every command and Python snippet of the README, and of the pages it was cut into, runs, small.

The commands are run in the pages' order in one folder, with these changes and no others:

- `make TARGET` is what `make --dry-run TARGET SCALE=smoke` says that it would run, unless the page
  names a scale;
- `--scale=quick` becomes `--scale=smoke`, and `runs/quick` in a snippet `runs/smoke`;
- what `_SMALLER` has for a binary is appended, since the last of two flags counts;
- files that a user has at hand (archives, a published checkpoint, a model) are generated before.

The snippets of a page are one program. What cannot run here stands in `LEFT_OUT`, with the reason.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from alp_repro import runs
from tests import command_runner, data_factory, test_checkpoints
from tests.small_model import small_images, small_labels, small_model

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "docs/getting_started.md",
        "docs/attack_a_model.md",
        "docs/audit_in_a_pipeline.md",
        "docs/reproduce.md",
    )
}
README = PAGES["README.md"]

_OF_THE_SHELL = "of the shell: the commands after it are run"
LEFT_OUT = {
    "git clone <this repository> alp_repro": _OF_THE_SHELL,
    "pip install -c constraints.txt .": "tests/experiments/test_installed.py installs the wheel",
    "make test": "it is what runs this",
    "make verify": "minutes: tests/experiments/test_verify.py runs it on a small model",
    "make figures": "minutes: figure3 stands for it; tests of the figures draw the others",
    "make cifar10-table2": "minutes: `make smoke` makes all tables from generated images",
    "make tiny-imagenet-table3": "minutes: `make smoke` makes all tables from generated images",
}
_SMALLER = {
    "train": ["--epochs=1", "--train_images=200", "--model_width=4"],
    "evaluate": ["--num_images=10", "--max_restarts=1"],
    "table": ["--only=clp"],
    "import_checkpoint": ["--model_width=4"],
    "audit": ["--num_images=10", "--minutes=0.5"],
}
# What stands before a page's snippets: the user's own model and images.
_GIVEN = """
import keras
from tests.small_model import small_images, small_labels, small_model
model, images = small_model(), small_images(12)
labels = small_labels(small_model(), small_images(40))[:12]
x_train, y_train, x_val, y_val = images, labels, images, labels
"""
# Pretrained weights would be downloaded.
_WITHOUT_WEIGHTS = ("MobileNetV2(", "MobileNetV2(weights=None, ")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a page, as it stands there."""

    text: str

    @property
    def module_and_arguments(self) -> list[str]:
        """What is run for it."""
        text = self.text
        if text.startswith("make "):
            text = _what_make_would_run(text)
        words = shlex.split(text.replace("--scale=quick", "--scale=smoke"))
        if words[0].startswith("alp-"):  # installed; the tests of that are in test_installed.py
            module = f"experiments.{words[0].removeprefix('alp-').replace('-', '_')}"
            words = ["python", "-m", module, *words[1:]]
        assert words[1] == "-m" and words[0].endswith("python"), text
        smaller = _SMALLER.get(words[2].rpartition(".")[2], ())
        # In so little time and on so few images a gate at the page's percentage may hold.
        gate = ["--fail_below=99"] if self.code else []
        return [*words[2:], *smaller, *gate]

    @property
    def code(self) -> int:
        """The exit code that the page foretells."""
        return 1 if "--fail_below=" in self.text else 0


def _what_make_would_run(command: str) -> str:
    scale = [] if "SCALE=" in command else ["SCALE=smoke"]
    lines = subprocess.run(
        [*shlex.split(command), "--dry-run", "--old-file=.venv/.ready", *scale],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    # The last one: a table is preceded by what only shows the published run.
    *_, line = (line for line in lines if " -m experiments." in line)
    return line


def _blocks(page: str) -> list[str]:
    """The indented blocks, which are Markdown's code."""
    found = re.findall(r"(?:^\n)((?: {4}.*\n|\n)+)", page, re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n") for block in found]


def _commands(page: str) -> list[str]:
    lines = "\n".join(_blocks(page)).replace("\\\n", " ").splitlines()
    stripped = [" ".join(line.split("#")[0].split()) for line in lines]
    programs = ("make ", ".venv/bin/python ", "alp-", "pip ", "python ", "git ")
    return [line for line in stripped if line.startswith(programs)]


def _snippets(page: str) -> list[str]:
    python = re.compile(r"^(import|from) |^[\w.]+ = |^print\(", re.M)
    return [block for block in _blocks(page) if python.search(block)]


# A command that stands on several pages is run once.
COMMANDS = [
    Command(text) for text in dict.fromkeys(c for page in PAGES.values() for c in _commands(page))
]
SNIPPETS = {name: "\n".join(code) for name, page in PAGES.items() if (code := _snippets(page))}
RUN = [command for command in COMMANDS if command.text not in LEFT_OUT]


@pytest.fixture(scope="module")
def ended(
    tmp_path_factory: pytest.TempPathFactory, mnist_data_dir: Path
) -> dict[str, tuple[int, str]]:
    """Exit code and output of everything that is run."""
    folder = tmp_path_factory.mktemp("readme")
    for dataset, name, kind in (
        ("cifar10", "cifar-10-binary", "gztar"),
        ("tiny_imagenet", "tiny-imagenet-200", "zip"),
    ):
        made = data_factory.MAKERS[dataset](folder / "made" / dataset)
        shutil.make_archive(str(folder / name), kind, root_dir=made.parent, base_dir=made.name)
    (folder / "downloads" / "mnist_clp").mkdir(parents=True)
    test_checkpoints.write("lenet", folder / "downloads" / "mnist_clp" / "model.ckpt")
    model = small_model()
    runs.save_model(folder / "my_model.keras", model)
    labels = small_labels(model, small_images(40))
    np.savez(folder / "my_images.npz", images=small_images(40), labels=labels)
    (folder / "results").mkdir()
    (folder / "results" / "published").symlink_to(ROOT / "results" / "published")
    work = [[command.text, *command.module_and_arguments] for command in RUN]
    for name, code in SNIPPETS.items():
        file = folder / f"{Path(name).stem}.py"
        code = code.replace(*_WITHOUT_WEIGHTS).replace("runs/quick", "runs/smoke")
        file.write_text(_GIVEN + code, encoding="utf-8")
        work.append([name, str(file)])
    return command_runner.run_all(
        work,
        cwd=folder,
        ALP_REPRO_DATA_DIR=str(mnist_data_dir),
        PYTHONIOENCODING="ascii",  # tables hold letters that this has not
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=lambda command: command.text)
def test_a_command_runs(command: Command, ended: dict[str, tuple[int, str]]) -> None:
    code, output = ended[command.text]
    assert code == command.code, output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("page", SNIPPETS)
def test_the_snippets_of_a_page_run(page: str, ended: dict[str, tuple[int, str]]) -> None:
    code, output = ended[page]
    assert code == 0, output


def _shown_table() -> list[list[str]]:
    """The cells of the README's table of results, row by row."""
    rows = re.findall(r"^\| (.*) \|$", README, re.MULTILINE)
    return [row.split(" | ") for row in rows if re.search(r"\d\.\d \(", row)]


def test_the_readme_shows_the_numbers_of_the_published_table() -> None:
    # Copied by hand: what is made again must be put there again.
    cells = collections.defaultdict(list)
    with (ROOT / "results/published/tables/table1.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            paper = f" ({float(line['paper']):.1f})" if line["paper"] else ""
            cells[line["label"].split(" (λ")[0]].append(f"{float(line['ours']):.1f}{paper}")
    expected = [
        [label, clean, default, larger, strong]
        for label, (clean, default, _, larger, strong) in cells.items()
    ]
    assert len(expected) == 8
    assert _shown_table() == expected


def test_the_readme_counts_the_verdicts() -> None:
    claims = json.loads((ROOT / "results/claims.json").read_text(encoding="utf-8"))["claims"]
    found = collections.Counter(claim["verdict"] for claim in claims)
    text = " ".join(README.split())
    assert f"Of {len(claims)} claims of the paper" in text
    for verdict, words in {
        "reproduced": "{} are reproduced",
        "partly": "{} partly",
        "not": "{} not",
        "undecided": "{} is undecided",
        "not yet tested": "{} are not yet tested",
    }.items():
        assert words.format(found.pop(verdict)) in text
    assert not found


def test_the_readme_fits() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120
    assert max(row.count("|") for row in lines) <= 6, "a table wider than a small screen"


def test_everything_is_found_and_nothing_is_left_out_that_is_not_there() -> None:
    assert len(COMMANDS) > 16 and len(SNIPPETS) >= 3
    assert set(LEFT_OUT) < {command.text for command in COMMANDS}
    fenced = [name for name, page in PAGES.items() if "```" in page]
    assert not fenced, "the commands of fenced blocks would not be found"
