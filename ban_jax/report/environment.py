"""The templates of the page, and what keeps hostile text from becoming part of it.

Paths, messages and class names come from untrusted files. Every text that a template
shows is spelled out where it is invisible and escaped, unless code of this package marked
it as markup; and the page's own policy forbids every script but ours.
"""

import base64
import functools
import hashlib
import importlib.resources
import re
from typing import Any

import jinja2
import markupsafe

from ban_jax.report import fields, text

_FLAG = r"--[a-z][a-z-]*(?:\.[a-z][a-z-]*)*"
_COMMAND = re.compile(rf"(ban-jax [a-z]+(?: {_FLAG} (?:'[^']*'|\S+))*|{_FLAG})")


@functools.cache
def templates() -> jinja2.Environment:
    """Where templates come from, and the rules they follow."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("ban_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "quantity": text.count,
        "flags": _flags,
        "lines": _lines,
        "seams": _seams,
    }
    found.globals["glyphs"] = fields.GLYPHS
    return found


@functools.cache
def static(name: str) -> markupsafe.Markup:
    """Our own style sheet or script, to be put into the page as it is."""
    folder = importlib.resources.files("ban_jax.report") / "static"
    return markupsafe.Markup((folder / name).read_text(encoding="utf-8"))


def policy(script: str) -> str:
    """The page may show what it holds and run one script; it may load nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; img-src data:; script-src 'sha256-{digest}'"
    )


def _visible(value: Any) -> Any:
    """What a template prints: text without invisible characters; markup as it is."""
    return value if hasattr(value, "__html__") else text.printable(value)


def _lines(value: str) -> markupsafe.Markup:
    """Text whose own line breaks are kept."""
    found = (text.printable(line) for line in value.splitlines())
    return markupsafe.Markup("\n").join(found)


def _seams(value: str) -> markupsafe.Markup:
    """A path that breaks after `/`, `_`, `-` and `.` before it breaks anywhere else."""
    parts = text.parts(text.printable(value))
    return markupsafe.Markup("<wbr>").join(parts)


def _code(found: str) -> markupsafe.Markup:
    """A flag, or a command whose words are not broken at their hyphens."""
    if found.startswith("--"):
        return markupsafe.Markup("<code>{}</code>").format(found)
    word = markupsafe.Markup("<span>{}</span>")
    words = markupsafe.Markup(" ").join(map(word.format, found.split(" ")))
    return markupsafe.Markup('<code class="command">{}</code>').format(words)


def _flags(value: str) -> markupsafe.Markup:
    """Text in which commands, and flags by themselves, stand out."""
    pieces = _COMMAND.split(text.printable(value))  # every second one is a match
    for place in range(1, len(pieces), 2):
        pieces[place] = _code(pieces[place])
    return markupsafe.Markup("").join(pieces)
