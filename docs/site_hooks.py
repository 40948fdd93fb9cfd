"""What the site has beside the pages in docs/: MkDocs calls these functions (mkdocs.yml, `hooks`).

The pages link to files of the repository, as they do when they are read there. Of these files,
`PAGES` become pages of the site, and the others are copied into it; links are turned to match.
A link to a folder becomes plain text.
"""

from __future__ import annotations

import base64
import json
import logging
import posixpath
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

sys.path.insert(0, str(Path(__file__).parent))
import flags_page

ROOT = Path(__file__).resolve().parents[1]
LOG = logging.getLogger("mkdocs.hooks.site")  # what it warns of fails a strict build
FLAGS_PAGE = "reference/flags.md"
# Files outside docs/ that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "results/claims.md": "evidence/claims.md",
    "results/published/tables/table1.md": "evidence/table1.md",
    "results/published/tables/table2.md": "evidence/table2.md",
    "results/seeds/tables/table1_seeds.md": "evidence/table1_seeds.md",
    "alp_repro/reporting/reference/departures.txt": "evidence/departures.md",
    **{
        f"notebooks/{name}.ipynb": f"tutorials/{name}.md"
        for name in ("does_logit_pairing_fool_my_attack", "audit_and_harden_my_classifier")
    },
}
_SOURCES = {page: source for source, page in PAGES.items()}
# [text](target), also of an image; not of a link within its page or to elsewhere.
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?![a-z]+:|#)([^()\s#]+)(#[^()\s]*)?\)")
_FENCED = re.compile(r"(^```[^\n]*\n.*?^```$|^(?: {4}[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
_LOADED = re.compile(r"<(?:link|script|img|iframe)\b[^>]*?\b(?:href|src)=[\"']?(https?:)?//[^>]*>")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/, the flags' page, and every file that pages link to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_markdown(ROOT / source)))
    files.append(File.generated(config, FLAGS_PAGE, content=flags_page.markdown()))
    files.append(File.generated(config, "evidence/figures.md", content=_figures()))
    waiting = [file for file in files if file.is_documentation_page()]
    while waiting:
        page = waiting.pop()
        for _, _, target, _ in _links(page.content_string):
            linked = _linked(page.src_uri, target)
            uri = linked and _uri_of(linked)
            if not linked or not uri or files.get_file_from_path(uri):
                continue
            file = File.generated(
                config, uri, abs_src_path=str(ROOT / linked), inclusion=InclusionLevel.NOT_IN_NAV
            )
            files.append(file)
            if file.is_documentation_page():
                waiting.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository, and let a list begin below a line of text."""

    def turned(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        linked = _linked(page.file.src_uri, target)
        if linked is None:
            return match[0]
        uri = _uri_of(linked)
        if uri is None:
            return text
        start = posixpath.dirname(page.file.src_uri)
        return f"{image}[{text}]({posixpath.relpath(uri, start or '.')}{anchor or ''})"

    def outside_code(text: str) -> str:
        # GitHub's Markdown has these lists, Python's wants an empty line.
        text = re.sub(r"^(?![ |>#-]|\d+\. )(.+)\n(?=- )", r"\1\n\n", text, flags=re.MULTILINE)
        return _LINK.sub(turned, text)

    pieces = _FENCED.split(markdown)
    pieces[::2] = [outside_code(piece) for piece in pieces[::2]]
    return "".join(pieces)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn where a page would load something from a network."""
    for found in _LOADED.finditer(output):
        if 'rel="canonical"' not in found[0]:
            LOG.warning("%s loads from a network: %s", page.file.src_uri, found[0])
    return output


def _links(markdown: str) -> list[tuple[str, str, str, str]]:
    text = "".join(_FENCED.split(markdown)[::2])
    return [tuple(match.groups()) for match in _LINK.finditer(text)]  # type: ignore[misc]


def _source_of(uri: str) -> str:
    """Return where a page lies in the repository."""
    if uri.startswith("repository/"):
        return uri.removeprefix("repository/")
    return _SOURCES.get(uri, f"docs/{uri}")


def _linked(uri: str, target: str) -> str | None:
    """Return the repository's file or folder that a page links to; None: none, or one of docs/."""
    source = PurePosixPath(_source_of(uri)).parent
    path = posixpath.normpath(str(source / target))
    inside = path.startswith("docs/") and _source_of(uri).startswith("docs/")
    return None if inside or not (ROOT / path).exists() else path


def _uri_of(path: str) -> str | None:
    """Return where a file of the repository lies in the site; None: it is a folder."""
    if (ROOT / path).is_dir():
        return None
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return PAGES.get(path, f"repository/{path}")


def _markdown(file: Path) -> str:
    """Return a page's Markdown: of a notebook its cells, of a text file a list of its lines."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        return "\n\n".join(map(_cell, json.loads(text)["cells"]))
    if file.suffix == ".txt":
        return "".join(f"- {line}\n" for line in text.splitlines() if line)
    return text


def _cell(cell: dict[str, Any]) -> str:
    """Return a notebook's cell with what it printed and drew."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            picture = "".join(data["image/png"]).strip()
            assert base64.b64decode(picture)
            parts.append(f"![A picture that the code above draws](data:image/png;base64,{picture})")
        elif text := "".join(output.get("text") or data.get("text/plain", "")).rstrip():
            parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts)


def _figures() -> str:
    """Return a page with every published figure and its caption."""
    parts = ["# Figures", "As `make figures SCALE=published` draws them from the stored results."]
    for file in sorted((ROOT / "results/published/figures").glob("*.json")):
        words = re.sub(r"(\d+)$", r" \1", file.stem).replace("_", " ").capitalize()
        caption = json.loads(file.read_text(encoding="utf-8"))["caption"]
        picture = f"../../{file.with_suffix('.png').relative_to(ROOT)}"
        parts.append(f"## {words}\n\n![{words}]({picture})\n\n{caption}")
    return "\n\n".join(parts)
