"""Flagfiles that somebody else wrote, or that are no flagfiles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alp_repro.errors import InputError
from experiments.flags import flagfiles, settings


def test_files_are_expanded_where_they_stand(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner.cfg", tmp_path / "outer.cfg"
    inner.write_text("--c=3\r\n", encoding="utf-8")
    outer.write_text(f"# λ\n// ε\n\n  --b=2 \n--flagfile={inner}\n", encoding="utf-8-sig")
    found = flagfiles.expand(["--a=1", f"--flagfile={outer}", "--flagfile", str(inner), "--d=4"])
    assert found == ["--a=1", "--b=2", "--c=3", "--c=3", "--d=4"]


def test_after_two_dashes_nothing_is_a_flag(tmp_path: Path) -> None:
    assert flagfiles.expand(["--", "--flagfile=x"]) == ["--", "--flagfile=x"]


def test_our_own_files_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--regularizer=clp" in flagfiles.expand(["--flagfile=flags/mnist/clp.cfg"])
    (tmp_path / "flags" / "mnist").mkdir(parents=True)
    (tmp_path / "flags" / "mnist" / "clp.cfg").write_text("--mine", encoding="utf-8")
    assert flagfiles.expand(["--flagfile=flags/mnist/clp.cfg"]) == ["--mine"]


def make(kind: str, path: Path) -> None:
    if kind == "not UTF-8":
        path.write_bytes("--row=café".encode("latin-1"))
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "too large":
        path.write_bytes(b"#" * 2_000_000)
    elif kind == "includes itself":
        path.write_text(f"--flagfile={path}", encoding="utf-8")
    elif kind == "grows without end":
        other = path.with_name("other.cfg")
        other.write_text("--a=1\n" * 9000, encoding="utf-8")
        path.write_text(f"--flagfile={other}\n" * 9000, encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("not UTF-8", "UTF-8"),
        ("a FIFO", "a regular file"),
        ("a folder", "a regular file"),
        ("too large", "at most 1000000 bytes"),
        ("includes itself", "includes itself"),
        ("grows without end", "more than 10000 flags"),
        ("absent", "does not exist"),
    ],
)
def test_what_is_no_flagfile_is_one_line(kind: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.cfg"
    make(kind, path)
    with pytest.raises(InputError, match=words) as caught:
        settings.parse([f"--flagfile={path}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "~nobody-here/x", "a\0b", "/dev/zero", ""])
def test_a_name_that_cannot_be_one_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match="--flagfile="):
        flagfiles.expand([f"--flagfile={name}"])
