"""The flags of every command as a page of the site, made from their definitions.

`python docs/flags_page.py` prints it.
"""

from __future__ import annotations

import html
import importlib
import json
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_HEAD = """# Flags of the commands

Made from the flags' definitions. A command is called as shown in a checkout, or by its short name
where the package is installed. `--help` lists the same, and `--helpfull` also what every absl
program has, among them `--flagfile=FILE`, which reads flags from a file. Every command has
`--traceback`: it shows where an error came from, not only what it says. Sizes are on the 0–255
scale.
"""


def markdown() -> str:
    """Return the page: a section a command, an item a flag."""
    # In a process of its own, which may import what defines flags and fork.
    told = subprocess.run(
        [sys.executable, __file__, "--json"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return _HEAD + "".join(map(_section, json.loads(told.stdout)))


def binaries() -> list[str]:
    """Return the modules of all commands, by the function that their console scripts call."""
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in sorted((ROOT / "experiments").rglob("*.py"))
        if "\ndef cli() -> None:" in file.read_text(encoding="utf-8")
    ]


def described(module: str) -> dict[str, Any]:
    """Return a command's name, first words and flags as plain data; it is imported for that."""
    from absl import flags

    binary = importlib.import_module(module)
    # By where they are defined: a command has flags of several of our modules.
    ours = [
        flag
        for name, defined in flags.FLAGS.flags_by_module_dict().items()
        if name.partition(".")[0] == "experiments"
        for flag in defined
        if flag.name != "traceback"  # every command has it
    ]
    return {
        "module": module,
        "about": (binary.__doc__ or "").partition("\n")[0],
        "flags": [_flag(flag) for flag in sorted(ours, key=lambda flag: flag.name)],
        "usage": "" if ours else _usage(module),
    }


def _usage(module: str) -> str:
    """Return what --help prints, of a command whose flags are argparse's."""
    asked = [sys.executable, "-m", module, "--help"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=ROOT)
    return told.stdout.strip()


def _flag(flag: Any) -> dict[str, Any]:
    value = flag.default_as_str
    return {
        "name": flag.name,
        "kind": ", ".join(map(str, getattr(flag.parser, "enum_values", None) or ()))
        or flag.flag_type(),
        "default": value and value.strip("'").replace(f"{ROOT}/", ""),
        "help": re.sub(r"^<[^>]*>: ", "", flag.help),  # absl puts the choices there
    }


def _section(command: dict[str, Any]) -> str:
    module = command["module"]
    where = module.replace("experiments", "alp_repro_cli", 1) + ":cli"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    names = [f"`{name}`" for name in re.findall(rf'^(\S+) = "{where}"', project, re.MULTILINE)]
    called = " or ".join([f"`python -m {module}`", *names])
    usage = f"```text\n{command['usage']}\n```\n"
    items = "".join(map(_item, command["flags"])) or usage
    name = module.rpartition(".")[2]
    return f"\n## {name}\n\n{called}: {_escaped(command['about'])}\n\n{items}"


def _item(flag: dict[str, Any]) -> str:
    default = f", default `{flag['default']}`" if flag["default"] else ""
    return f"- **`--{flag['name']}`** ({flag['kind']}{default}): {_escaped(flag['help'])}\n"


def _escaped(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("*", r"\*")


def main() -> None:
    """Print the page, or its content as JSON."""
    if "--json" not in sys.argv:
        print(markdown())
        return
    sys.path.insert(0, str(ROOT))
    # A process a command: a flag may be defined once only in each.
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        json.dump(pool.map(described, binaries(), chunksize=1), sys.stdout)


if __name__ == "__main__":
    main()
