"""Give the site the files of the repository that its pages link to.

Pages in ``docs/`` link to results, model cards and examples by relative paths, so that the links
work in any checkout. Those files, and what they link to in turn, become part of the site:
``docs/NAME`` is the page ``NAME``, ``CONTRIBUTING.md`` and ``CHANGELOG.md`` have pages of their
own, and everything else lies under ``repository/`` by its path.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# An inline link or image whose address has no scheme, or code, in which nothing is a link.
_LINK_OR_CODE = re.compile(
    r"```.*?```|`(?:[^`\n]|\n(?!\n))*`|\[(?P<text>[^\]]*)\]\((?!\w+:)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)",
    re.DOTALL,
)

_origins: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is linked to, page by page until nothing new turns up."""
    _origins.clear()
    waiting = [*PAGES]
    for file in files.documentation_pages():
        _origins[file.src_uri] = f"docs/{file.src_uri}"
        waiting.extend(_linked(f"docs/{file.src_uri}"))
    while waiting:
        path = waiting.pop()
        uri = _uri(path)
        if path.startswith("docs/") or uri in _origins or not (ROOT / path).is_file():
            continue
        _origins[uri] = path
        level = InclusionLevel.INCLUDED if path in PAGES else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path), inclusion=level))
        if path.endswith(".md"):
            waiting.extend(_linked(path))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the repository's paths into the site's; a link to a bare folder becomes plain text."""
    here = page.file.src_uri
    origin = _origins[here]

    def changed(match: re.Match[str]) -> str:
        if match["path"] is None:
            return match[0]
        path = _resolved(origin, match["path"])
        if (ROOT / path).is_dir():
            return match["text"]
        target = os.path.relpath(_uri(path), os.path.dirname(here) or ".")
        return f"[{match['text']}]({target}{match['anchor'] or ''})"

    return _LINK_OR_CODE.sub(changed, markdown)


def _linked(path: str) -> list[str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    links = (match["path"] for match in _LINK_OR_CODE.finditer(text))
    return [_resolved(path, link) for link in links if link is not None]


def _resolved(origin: str, link: str) -> str:
    """Path from the repository's root; a folder's README stands for the folder."""
    path = os.path.normpath(os.path.join(os.path.dirname(origin), link))
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def _uri(path: str) -> str:
    if path.startswith("docs/"):
        return path[len("docs/") :]
    return PAGES.get(path, f"repository/{path}")
