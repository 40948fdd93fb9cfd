"""The plan of the house: who may import whom, seen in the sources (README, "The library")."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "alp_repro"
LONGEST_FILE = 350

# A wing imports from those before it and from the ground floor, which is everything else: the
# library's own files, and its folders `models`, `system` and `validation`.
# `checkpoints` is one file that stands for itself: it knows for which data set a model was made.
WINGS = (
    "classifiers",
    "data",
    "checkpoints",
    "attacks",
    "training",
    "evaluation",
    "tasks",
    "reporting",
    "auditing",
)
# Wings side by side: neither imports the other.
BESIDE = {frozenset({"training", "evaluation"}), frozenset({"classifiers", "data"})}
GROUND = ""


def modules() -> dict[str, ast.Module]:
    """Every module of the library by its dotted name."""
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            file.read_text(encoding="utf-8")
        )
        for file in sorted(LIBRARY.rglob("*.py"))
    }


MODULES = modules()


def wing(module: str) -> str:
    """The wing of a module of the library; "" is the ground floor."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in WINGS else GROUND


def imports(tree: ast.Module) -> list[tuple[str, str, bool]]:
    """(module, name, at once) of what is imported from the library: at once, or in a function."""
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        at_once = id(node) not in later
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "the library imports by absolute names"
            if (node.module or "").split(".")[0] == "alp_repro":
                found += [(node.module or "", alias.name, at_once) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [
                (alias.name, "", at_once)
                for alias in node.names
                if alias.name.split(".")[0] == "alp_repro"
            ]
    return found


def target(module: str, name: str) -> str:
    """The module that `from module import name` reads."""
    return f"{module}.{name}" if f"{module}.{name}" in MODULES else module


ARROWS = [
    (source, target(module, name), name, at_once)
    for source, tree in MODULES.items()
    for module, name, at_once in imports(tree)
]


@pytest.mark.parametrize("source", [name for name in MODULES if name != "alp_repro"])
def test_a_wing_imports_what_is_below_it(source: str) -> None:
    own = wing(source)
    for module in (arrow[1] for arrow in ARROWS if arrow[0] == source):
        other = wing(module)
        assert module != "alp_repro", "the front door imports everything"
        if other in (own, GROUND):
            continue
        assert own != GROUND, f"the ground floor imports {module}"
        assert WINGS.index(other) < WINGS.index(own), f"{source} imports {module}, above it"
        assert frozenset({own, other}) not in BESIDE, f"{source} imports {module}, beside it"


def test_no_private_name_is_imported() -> None:
    private = [
        f"{source}: {module} {name}"
        for source, module, name, _ in ARROWS
        if (name.startswith("_") and not name.startswith("__"))
        or any(part.startswith("_") for part in module.split("."))
    ]
    assert not private


def test_no_private_attribute_of_another_module_is_used() -> None:
    found = []
    for source, tree in MODULES.items():
        ours = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if target(node.module or "", alias.name) == f"{node.module}.{alias.name}"
        }
        found += [
            f"{source}: {node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ours
            and node.attr.startswith("_")
        ]
    assert not found


def test_tests_use_no_private_name_of_ours() -> None:
    """What a test patches or calls is meant for that: TFDS', Ray's and others' names aside."""
    found = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        ours = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom | ast.Import)
            for alias in node.names
            if (getattr(node, "module", None) or alias.name).split(".")[0] in OURS
        }
        found += [
            f"{file.relative_to(ROOT)}:{node.lineno}: {name}"
            for node in ast.walk(tree)
            for name in _private_names(node, ours)
        ]
    assert not found


OURS = ("alp_repro", "experiments", "benchmarks")


def _private_names(node: ast.AST, ours: set[str]) -> list[str]:
    """Private names that a node imports, reads, or hands to `monkeypatch.setattr` and the like."""
    names: list[str] = []
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
        names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    elif isinstance(node, ast.Attribute) and _root(node.value) in ours:
        names = [node.attr]
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", "").endswith("attr"):
        first, *rest = [*node.args, ast.Constant(""), ast.Constant("")]
        if isinstance(first, ast.Constant) and str(first.value).split(".")[0] in OURS:
            names = str(first.value).split(".")
        elif _root(first) in ours and isinstance(rest[0], ast.Constant):
            names = [str(rest[0].value)]
    return [name for name in names if re.match("_[a-zA-Z]", name)]


def _root(node: ast.AST) -> str:
    """The name that a chain of attributes starts from."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", "")


def test_no_circle() -> None:
    """Among imports at the top of modules; a package's `__init__` stands for itself alone."""
    below: dict[str, set[str]] = {name: set() for name in MODULES}
    for source, module, _, at_once in ARROWS:
        if at_once and module != source:
            below[source].add(module)
    done: set[str] = set()
    while len(done) < len(below):
        ready = {name for name, needs in below.items() if name not in done and needs <= done}
        assert ready, f"a circle among {sorted(set(below) - done)}"
        done |= ready


def test_no_trace_goes_through_autograph() -> None:
    """Which takes most of the time of a trace, for loops that `tf.while_loop` says as well."""
    found = []
    for source, tree in MODULES.items():
        told = {
            id(node.func)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and any(
                word.arg == "autograph" and ast.unparse(word.value) == "False"
                for word in node.keywords
            )
        }
        found += [
            f"{source}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and ast.unparse(node) == "tf.function"
            and id(node) not in told
        ]
    assert not found


def test_the_library_knows_no_flags_and_no_binaries() -> None:
    for source, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                assert not name.startswith(("absl.flags", "absl.app", "experiments")), source


@pytest.mark.parametrize("folder", ["alp_repro", "experiments"])
def test_files_are_short(folder: str) -> None:
    long = {
        str(file.relative_to(ROOT)): length
        for file in (ROOT / folder).rglob("*.py")
        if (length := len(file.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    }
    assert not long, long


def test_every_text_file_is_read_and_written_as_utf8() -> None:
    """The locale's encoding is another one on some systems."""
    missing = []
    for folder in ("alp_repro", "experiments", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _opens_text(node):
                    missing.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not missing


def _opens_text(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes a text file without saying its encoding."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    values = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    if name in ("read_text", "write_text"):
        return (
            isinstance(function, ast.Attribute)
            and (len(call.args) < (1 if name == "read_text" else 2))
            and getattr(function.value, "id", "") != "files"
        )
    if name != "open" or getattr(getattr(function, "value", None), "id", "") in (
        "tarfile",
        "zipfile",
        "archive",
        "gzip",
        "os",
        "Image",
    ):
        return False
    return not any(isinstance(v, str) and "b" in v and set(v) <= set("rwxab+") for v in values)


def test_the_formatter_formats_everything() -> None:
    marked = [
        str(file.relative_to(ROOT))
        for folder in ("alp_repro", "experiments", "benchmarks", "tests")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if re.search(r"# fmt: *(?:skip|off)", file.read_text(encoding="utf-8"))
    ]
    assert not marked


def test_the_library_knows_no_command_lines() -> None:
    """A message that names a flag or a binary means nothing to who calls from Python."""
    found = [
        f"{source}: {node.value!r}"
        for source, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.search(r"(?<![\w-])--[a-z]|python -m|\balp-[a-z]", node.value)
        and source != "alp_repro.runs"  # git's flags
        and "`ray start" not in node.value
    ]
    assert not found
