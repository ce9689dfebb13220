"""Texts that mkdocs does not make: links to files and from notebooks, names in docstrings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.pages import Page

NOTEBOOKS = "notebooks/"
PAGE = re.compile(r'(href="(?!https?:)[^"#]*)\.(?:md|py)(?=["#])')
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)]*)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links to files outside ``docs`` into their names."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Let links of a notebook lead to pages, and drop the roles of Sphinx from docstrings."""
    html = ROLE.sub("", html)
    return PAGE.sub(r"\1.html", html) if page.file.src_uri.startswith(NOTEBOOKS) else html
