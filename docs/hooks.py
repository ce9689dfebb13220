"""Links from pages to files of the repository, which are not part of the site."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)]*)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links to files outside ``docs`` into their names."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)
