"""Links that mkdocs does not make: to files of the repository, and from notebooks to pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.pages import Page

NOTEBOOKS = "notebooks/"
PAGE = re.compile(r'(href="(?!https?:)[^"#]*)\.(?:md|py)(?=["#])')
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)]*)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links to files outside ``docs`` into their names."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Let links of a notebook lead to pages instead of their sources."""
    return PAGE.sub(r"\1.html", html) if page.file.src_uri.startswith(NOTEBOOKS) else html
