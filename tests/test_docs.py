"""The documentation leaves nothing out; `make docs` checks its links and that it builds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import alp_repro

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

# Imports each command in a fork, since two of them define the same flags, and prints the names of
# all flags that our own modules define for it, and of those that its --help lists.
FLAGS_OF_ALL = """
import importlib, json, multiprocessing, sys

def names(module):
    from absl import flags
    importlib.import_module(module)
    defined = flags.FLAGS.flags_by_module_dict()
    own = [f.name for m, fs in defined.items() if m.startswith("experiments") for f in fs]
    return own, [flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)]

with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print(json.dumps(dict(zip(sys.argv[1:], pool.map(names, sys.argv[1:], chunksize=1)))))
"""


def test_every_public_name_is_in_the_reference_once() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert sorted(re.findall(r"^::: alp_repro\.(\w+)$", text, re.MULTILINE)) == sorted(
        alp_repro.__all__
    )


@pytest.fixture(scope="module")
def flags_page() -> str:
    """The page of the flags, as the site has it."""
    made = [sys.executable, "docs/flags_page.py"]
    return subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def sections(flags_page: str) -> dict[str, set[str]]:
    """The flags that the page lists for each command."""
    _, *found = re.split(r"^## ", flags_page, flags=re.MULTILINE)
    return {
        re.search(r"`python -m (\S+)`", section)[1]: set(re.findall(r"\*\*`--(\w+)`", section))
        for section in found
    }


@pytest.fixture(scope="module")
def flags_of_all(sections: dict[str, set[str]]) -> dict[str, tuple[list[str], list[str]]]:
    """The flags of each command: its own, and those that its --help lists."""
    asked = [sys.executable, "-c", FLAGS_OF_ALL, *sections]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return json.loads(told)


@pytest.mark.slow
def test_every_flag_of_every_command_is_listed(
    flags_page: str,
    sections: dict[str, set[str]],
    flags_of_all: dict[str, tuple[list[str], list[str]]],
) -> None:
    everywhere = set(re.findall(r"`--(\w+)`", flags_page.partition("\n## ")[0]))
    for module, (names, _) in flags_of_all.items():
        assert len(names) > 2 or module == "experiments.verify_adversarial"  # argparse's
        assert not set(names) - sections[module] - everywhere, module
    assert "--data DATA" in flags_page


@pytest.mark.slow
def test_help_lists_every_flag_of_a_command(
    flags_of_all: dict[str, tuple[list[str], list[str]]],
) -> None:
    # Else a flagfile sets flags that its reader looks for in --help in vain.
    for module, (names, helped) in flags_of_all.items():
        assert set(names) - {"traceback"} <= set(helped), module


@pytest.mark.slow
def test_every_console_script_has_a_section(flags_page: str) -> None:
    scripts = re.findall(r'^(alp-\S+) = "alp_repro_cli', PYPROJECT, re.MULTILINE)
    assert len(scripts) > 5
    assert [name for name in scripts if f" or `{name}`: " not in flags_page] == []
