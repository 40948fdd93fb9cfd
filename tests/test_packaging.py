"""What pyproject.toml, constraints.txt, CITATION.cff and the workflows say fits together."""

from __future__ import annotations

import ast
import itertools
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import alp_repro

tomllib = pytest.importorskip("tomllib")  # Python 3.11

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
EXTRAS = PROJECT["optional-dependencies"]


def name_of(requirement: str) -> str:
    return re.split(r"[\s<>=!;\[]", requirement)[0].lower().replace("_", "-")


PINNED = {
    name_of(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
}


def test_there_is_one_version() -> None:
    assert PROJECT["dynamic"] == ["version"]
    read = PYPROJECT["tool"]["setuptools"]["dynamic"]["version"]
    assert read == {"attr": "alp_repro.versions.VERSION"}
    assert CITATION["version"] == alp_repro.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d\S*?),? ", changes, re.MULTILINE)
    assert newest is not None
    assert newest[1] == alp_repro.__version__


def test_the_citation_names_the_same_authors_and_paper() -> None:
    assert [author["name"] for author in PROJECT["authors"]] == [
        author["name"] for author in CITATION["authors"]
    ]
    assert PROJECT["license"] == CITATION["license"]
    assert PROJECT["urls"]["Paper"] == CITATION["preferred-citation"]["url"]


@pytest.mark.parametrize(
    "extra", ["", "dev", "cluster", "coverage", "docs", "notebook", "tensorboard"]
)
def test_what_is_needed_is_pinned(extra: str) -> None:
    needed = EXTRAS[extra] if extra else PROJECT["dependencies"]
    assert not {name_of(one) for one in needed} - PINNED


def imported(file: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_what_the_library_imports_is_declared() -> None:
    """Keras and Protobuf too, though TensorFlow brings them."""
    module = {"pyyaml": "yaml", "absl-py": "absl", "protobuf": "google"}
    declared = {name_of(one) for one in itertools.chain(PROJECT["dependencies"], *EXTRAS.values())}
    known = {module.get(name, name.replace("-", "_")) for name in declared}
    files = [f for folder in ("alp_repro", "experiments") for f in (ROOT / folder).rglob("*.py")]
    foreign = set().union(*map(imported, files)) - sys.stdlib_module_names - {"alp_repro"}
    assert "keras" in foreign
    assert foreign - known == {"mpl_toolkits"}  # a part of matplotlib


def test_every_script_is_there() -> None:
    for where in PROJECT["scripts"].values():
        package, binary, function = re.split("[.:]", where)
        assert (package, function) == ("alp_repro_cli", "cli")
        assert "\ndef cli() -> None:" in (ROOT / "experiments" / f"{binary}.py").read_text("utf-8")


def test_every_file_that_travels_is_there() -> None:
    folders = {"alp_repro.packaged.flags": "flags", "alp_repro.packaged.mnist": "data/mnist"}
    for package, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            assert any((ROOT / folders.get(package, package)).glob(pattern)), pattern


YAML_FILES = [
    *sorted((ROOT / ".github").rglob("*.yml")),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "action.yml",
]


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: file.name)
def test_what_services_read_is_yaml(file: Path) -> None:
    found: dict[Any, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(found, dict) and found
    for script in re.findall(r"\n *run: .*", file.read_text(encoding="utf-8")):
        assert "${{" not in script


def test_the_image_is_built_from_files_that_are_sent() -> None:
    """Docker sends what .dockerignore lets through, and nothing else."""
    sent = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {
        name
        for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY")
        for name in line.split()[1:-1]
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
