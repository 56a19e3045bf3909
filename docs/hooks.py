"""What the site does to a page: its first is the README, links to the checkout are text.

Files outside of docs/ are not part of a site, and a site built without network cannot tell
where they are published.
"""

import pathlib
import re
from typing import Any

README = pathlib.Path(__file__).parents[1] / "README.md"
ELSEWHERE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)")
LINK = re.compile(r"\]\((?!https?:|#)([^)]*)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """A page of docs/ as the site shows it."""
    if page.file.src_uri == "index.md":
        markdown = moved(README.read_text(encoding="utf-8"))
    return ELSEWHERE.sub(r"\1", markdown)


def moved(readme: str) -> str:
    """The README with its links as seen from docs/."""
    return LINK.sub(lambda found: f"]({_seen(found[1])})", readme)


def _seen(target: str) -> str:
    return (
        target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"
    )
