"""action.yml: the script of its audit, run as GitHub runs it, with a stand-in for alp-audit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from absl import flags

from experiments import audit

ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
(STEP,) = [step for step in ACTION["runs"]["steps"] if step.get("id") == "audit"]

# Notes its arguments, writes what an audit writes, and ends as it is told.
STAND_IN = """#!/bin/bash
printf '%s\\n' "$@" > flags.txt
if [[ -n "$WORST" ]]; then
  mkdir -p "$OUT"
  echo "{\\"worst_accuracy\\": $WORST}" > "$OUT/audit.json"
  printf -- '---\\nmodel-index: []\\n---\\nAt most.\\n' > "$OUT/model_card.md"
fi
exit "$CODE"
"""


def run(tmp_path: Path, *, code: int, worst: str = "", **given: str) -> dict[str, Any]:
    """What the step leaves: its exit code, the flags, the outputs and the summary."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "alp-audit").write_text(STAND_IN, encoding="utf-8")
    (tmp_path / "bin" / "alp-audit").chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    inputs = {name: one.get("default", "") for name, one in ACTION["inputs"].items()}
    inputs |= {name.replace("_", "-"): value for name, value in given.items()}
    environment = {
        name: inputs[re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", value)[1]]  # type: ignore[index]
        for name, value in STEP["env"].items()
    }
    for name in ("output", "summary"):
        (tmp_path / name).touch()
    ended = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEP["run"]],
        cwd=tmp_path,
        env={
            **environment,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
            "CODE": str(code),
            "WORST": worst,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (tmp_path / "output").read_text(encoding="utf-8").splitlines()
    return {
        "code": ended.returncode,
        "stderr": ended.stderr,
        "flags": (tmp_path / "flags.txt").read_text(encoding="utf-8").splitlines(),
        "outputs": dict(line.split("=", 1) for line in lines),
        "summary": (tmp_path / "summary").read_text(encoding="utf-8"),
    }


pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


@pytest.mark.parametrize(
    ("code", "worst", "told"),
    [(0, "0.4", "0.4"), (0, "0.0", "0.0"), (1, "0.25", "0.25"), (3, "null", "")],
)
def test_the_step_ends_as_the_audit_does(code: int, worst: str, told: str, tmp_path: Path) -> None:
    found = run(tmp_path, code=code, worst=worst, model="m.keras", data="d.npz")
    assert found["code"] == code, found["stderr"]
    assert found["outputs"] == {"exit-code": str(code), "worst-accuracy": told}
    assert found["summary"] == "At most.\n"  # without the YAML


def test_bad_input_leaves_no_report_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "audit.json").write_text(json.dumps({"worst_accuracy": 1.0}))
    found = run(tmp_path, code=2, model="m.keras", data="d.npz")
    assert found["code"] == 2
    assert found["outputs"] == {"exit-code": "2"}
    assert found["summary"] == ""


def test_inputs_become_flags_of_the_audit_as_they_are(tmp_path: Path) -> None:
    """A space, a quote or a command in an input stays text."""
    name = "my model's $(touch broken);`touch broken`.keras"
    found = run(
        tmp_path,
        code=0,
        worst="0.5",
        model=name,
        data="d.npz",
        fail_below="30",
        arguments="--pixel_range=0,255\n\n--class_names=a b,c\n",
    )
    values = flags.FlagValues()
    audit.define_flags(values)
    assert values(["audit", *found["flags"]]) == ["audit"]
    assert (values.model, values.fail_below, values.eps) == (name, 30, 8)
    assert values.class_names == ["a b", "c"]
    assert values.junit and values.model_card
    assert not (tmp_path / "broken").exists()


def test_without_a_bound_none_is_given(tmp_path: Path) -> None:
    found = run(tmp_path, code=0, worst="0.5", model="m", data="d")
    assert not [flag for flag in found["flags"] if "fail_below" in flag]


def test_defaults_are_those_of_the_flags() -> None:
    values = flags.FlagValues()
    audit.define_flags(values)
    for name in ("eps", "minutes", "num-images", "out"):
        default = values[name.replace("-", "_")].default
        given = ACTION["inputs"][name]["default"]
        assert given == (default if isinstance(default, str) else f"{default:g}")
