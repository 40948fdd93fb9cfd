"""Every command and Python snippet of the README runs, at smoke size.

The commands are run in the README's order in one folder, with these changes and no others:

- `make TARGET` is what `make --dry-run TARGET SCALE=smoke` says that it would run;
- `--scale=quick` becomes `--scale=smoke`, and `runs/quick` in a snippet `runs/smoke`;
- what `_SMALLER` has for a binary is appended, since the last of two flags counts;
- files that a user has at hand (archives, a published checkpoint) are generated before.

What cannot run here stands in `LEFT_OUT`, with the reason.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import command_runner, data_factory, test_checkpoints

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

LEFT_OUT = {
    "make test": "it is what runs this",
    "make verify": "minutes: tests/experiments/test_verify.py runs it on a small model",
    "make figures": "minutes: figure3 stands for it; tests of the figures draw the others",
    "alp-audit --model=my_model.keras --data=my_images.npz --eps=8 --out=audit/": (
        "tests/experiments/test_audit.py runs it with such files"
    ),
    "make cifar10-table2": "minutes: `make smoke` makes all tables from generated images",
    "make tiny-imagenet-table3": "minutes: `make smoke` makes all tables from generated images",
}
_SMALLER = {
    "train": ["--epochs=1", "--train_images=200", "--model_width=4"],
    "evaluate": ["--num_images=10", "--max_restarts=1"],
    "table": ["--only=clp"],
    "import_checkpoint": ["--model_width=4"],
    "prepare_data": [],
    "claims": [],
    "figures": [],
    "report": [],
}
# What stands before a snippet: the user's own model and images.
_GIVEN = """
from tests.small_model import small_images, small_labels, small_model
model, images = small_model(), small_images(12)
labels = small_labels(small_model(), small_images(40))[:12]
"""
# Pretrained weights would be downloaded.
_WITHOUT_WEIGHTS = ("MobileNetV2(", "MobileNetV2(weights=None, ")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the README, as it stands there."""

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
        binary = words[2].removeprefix("experiments.")
        return [*words[2:], *_SMALLER[binary]]


def _what_make_would_run(command: str) -> str:
    lines = subprocess.run(
        [*shlex.split(command), "--dry-run", "--old-file=.venv/.ready", "SCALE=smoke"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    # The last one: a table is preceded by what only shows the published run.
    *_, line = (line for line in lines if " -m experiments." in line)
    return line


def _blocks() -> list[str]:
    """The indented blocks, which are Markdown's code."""
    found = re.findall(r"(?:^\n)((?: {4}.*\n|\n)+)", README, re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n") for block in found]


def _commands() -> list[Command]:
    lines = "\n".join(_blocks()).replace("\\\n", " ").splitlines()
    stripped = [" ".join(line.split("#")[0].split()) for line in lines]
    programs = ("make ", ".venv/bin/python ", "alp-", "pip ", "python ", "git ")
    return [Command(line) for line in stripped if line.startswith(programs)]


def _snippets() -> list[str]:
    return [block for block in _blocks() if re.search(r"^(import|from) |^\w+ = ", block, re.M)]


COMMANDS = _commands()
SNIPPETS = {f"snippet {number}": code for number, code in enumerate(_snippets(), 1)}
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
    work = [[command.text, *command.module_and_arguments] for command in RUN]
    code = _GIVEN
    for name, snippet in SNIPPETS.items():
        code += snippet.replace(*_WITHOUT_WEIGHTS).replace("runs/quick", "runs/smoke") + "\n"
        file = folder / f"{name.replace(' ', '_')}.py"
        file.write_text(code, encoding="utf-8")
        work.append([name, str(file)])
    return command_runner.run_all(
        work,
        cwd=folder,
        ALP_REPRO_DATA_DIR=str(mnist_data_dir),
        PYTHONIOENCODING="ascii",  # tables hold letters that this has not
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", [command.text for command in RUN])
def test_a_command_runs(command: str, ended: dict[str, tuple[int, str]]) -> None:
    code, output = ended[command]
    assert code == 0, output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet: str, ended: dict[str, tuple[int, str]]) -> None:
    code, output = ended[snippet]
    assert code == 0, output


def _table_lines(file: Path) -> list[str]:
    """The rows of a results file's first table that say something."""
    table = re.findall(r"^\|.*\|$", file.read_text(encoding="utf-8"), re.MULTILINE)[2:]
    return [line for line in table if re.search(r"\[\d|\*\*", line)]


@pytest.mark.parametrize("file", ["published/tables/table1.md", "claims.md"])
def test_the_first_screen_shows_what_the_results_say(file: str) -> None:
    # Copied by hand: what is made again must be put there again.
    lines = _table_lines(ROOT / "results" / file)
    assert len(lines) >= 2
    assert [line for line in lines if line not in README.splitlines()] == []


def test_everything_is_found_and_nothing_is_left_out_that_is_not_there() -> None:
    assert len(COMMANDS) > 12 and len(SNIPPETS) >= 3
    assert set(LEFT_OUT) < {command.text for command in COMMANDS}
    fenced = README.count("```")
    assert not fenced, "the commands of fenced blocks would not be found"
